"""Hostile requests: patterns that name shards, ids, bombs in JSON and forms, and what a page of another site sends."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from bench.hostile.service import PLANTED, AttackedService

MEBIBYTE = 2**20
PIECES = (
    *("*", "?", "**", "[a-z]", "[!a]", "[", "]", "{", "}", "{0..9}", "{00..99}", "{a,b}", "{,}", "..", ".", "/", "//"),
    *(
        "@",
        "~",
        "$HOME",
        "%2e",
        "\\",
        " ",
        "\t",
        "\n",
        "\0",
        "\x7f",
        "é",
        "\u202e",
        "\U0001f600",
        "a",
        "z",
        "tar",
        ".tar",
    ),
    *(
        "s3://",
        "file://",
        "https://127.0.0.1/",
        "http://169.254.169.254/",
        "gs://b/",
        "memory://",
        "::",
        "zip://",
        "|ls",
    ),
    *("secrets.txt", "etc/passwd", "proc/self/environ", "dev/zero", "tars", "folder", "x" * 300),
)
LONG = (
    *("*?" * 20 + "z", "*a" * 1900 + "*b", "{0..99999}" * 372, "{" * 4000, "}" * 4000, "[a-z]" * 700, "**/" * 500),
    *("{a,b}" * 60, "{0..99999999999999999999}", "{1..1000000000}", "/*" * 40, "../" * 900, "@" * 3000, "{0..9}" * 20),
)
ID_PIECES = (
    ":",
    "..",
    "/",
    "%2f",
    "%00",
    "events",
    "index",
    "*",
    "?",
    "#",
    "ü",
    "²",
    "a",
    "0123456789abcdef",
    "A" * 70,
)


def attack_patterns(service: AttackedService, seed: int, count: int) -> None:
    """Random and crafted patterns; a job that was created is cancelled, and no response quotes a file's lines."""
    rng, root = random.Random(seed + 3), str(service.shards)
    lists = _write_lists(service)
    crafted = [[f"{root}/{text}"] for text in LONG] + [[text] for text in LONG] + lists
    for patterns in [*crafted, *(_random_patterns(rng, root) for _ in range(count - len(crafted)))]:
        body = json.dumps({"input": {"shards": patterns}}).encode()
        what = f"{len(patterns)} patterns, {patterns[0][:100]!r}"
        answer = service.caller.send("patterns", "POST", "/v1/batches", content=body, headers=_JSON, what=what)
        if answer is not None and PLANTED in answer.text:
            service.tally.add(service.tally.wrong, f"patterns: {what}: the response quotes a file: {answer.text[:300]}")
        if answer is not None and answer.status_code == 202:
            service.caller.send("patterns", "POST", f"/v1/jobs/{answer.json()['id']}/cancel")
    service.tally.done["patterns"] += count


_JSON = {"Content-Type": "application/json"}


def _write_lists(service: AttackedService) -> list[list[str]]:
    """Lists below the roots that name files with secrets, each other, or very much; the patterns that use them."""
    root = service.shards
    texts = {
        "own.txt": f"@{root}/own.txt\n" * 50,
        "many.txt": f"{root}/a.tar\n" * 200_000,
        "wide.txt": "{0..999}{0..999}.tar\n" * 50,
        "binary.txt": bytes(range(256)).decode("latin-1") * 1000,
        "line.txt": "x" * 5_000_000,
    }
    for name, text in texts.items():
        (root / name).write_text(text, encoding="latin-1")
    one = [[f"@{root}/{name}"] for name in (*texts, "secrets.txt", "missing.txt", "")]
    return [*one, [f"@{root}/many.txt"] * 20_000, [f"@{root}/secrets.txt", "x"], ["@/etc/passwd"], ["@/dev/zero"]]


def _random_patterns(rng: random.Random, root: str) -> list[str]:
    """A few patterns of random pieces, most of which begin with the root."""
    begin = (f"{root}/", "", "/", "@", f"@{root}/")
    return [
        rng.choice(begin) + "".join(rng.choices(PIECES, k=rng.randint(0, 14)))
        for _ in range(rng.choice((1, 1, 1, 3, 40)))
    ]


def attack_ids(service: AttackedService, seed: int, count: int) -> None:
    """Texts in place of ids, keys and cursors."""
    rng = random.Random(seed + 4)
    answer = service.caller.send("ids", "GET", "/v1/jobs?limit=1")
    known = answer.json()["jobs"][0]["id"] if answer is not None and answer.json()["jobs"] else "a1"
    for _ in range(count):
        text = "".join(rng.choices((known, *ID_PIECES), k=rng.randint(1, 4)))
        sent = quote(text, safe="%") if rng.random() < 0.5 else text.replace("#", "").replace("?", "")
        method, path = rng.choice(_ID_ROUTES)
        answer = service.caller.send("ids", method, path.format(known=known, text=sent))
        unknown = method == "GET" and "cursor" in path and answer is not None and answer.status_code == 200
        if unknown and text.strip() and text != known and "/v1/jobs?" not in path:
            service.tally.add(service.tally.wrong, f"ids: {path.format(known=known, text=sent)} was accepted")
    service.tally.done["ids"] += count


_ID_ROUTES = (
    *(("GET", f"/v1/jobs/{{text}}{end}") for end in ("", "/results", "/failures", "/events")),
    *(("POST", f"/v1/jobs/{{text}}/{act}") for act in ("cancel", "retry")),
    ("GET", "/v1/records/{text}/a"),
    ("GET", "/v1/records/{known}/{text}"),
    ("GET", "/v1/records/{known}/{text}/image"),
    ("GET", "/v1/jobs/{known}/results?cursor={text}"),
    ("GET", "/v1/jobs?cursor={text}"),
)


def attack_bombs(service: AttackedService, seed: int) -> None:
    """Bodies that are deep, wide or long: JSON, metadata, forms."""
    for name, content, media_type in _bodies(random.Random(seed + 5)):
        for path in ("/v1/captions", "/v1/batches"):
            headers = {"Content-Type": media_type}
            service.caller.send("bombs", "POST", path, content=content(), headers=headers, what=f"{name} to {path}")
    # jobs with much metadata must not make the list of jobs large
    shard = service.shards / "secrets.tar"
    shard.write_bytes(b"")
    for _ in range(6):
        metadata = {f"{number}": "m" * 90_000 for number in range(200)}
        body = {"input": {"shards": [str(shard)]}, "metadata": metadata}
        service.caller.send("bombs", "POST", "/v1/batches", json=body, what="18 MB of metadata")
    answer = service.caller.send("bombs", "GET", "/v1/jobs?limit=200")
    if answer is not None and len(answer.content) > 16 * MEBIBYTE:
        service.tally.add(service.tally.wrong, f"bombs: GET /v1/jobs has {len(answer.content) / MEBIBYTE:.0f} MiB")


def _bodies(rng: random.Random) -> Iterator[tuple[str, Callable[[], bytes], str]]:
    """Bodies by name, made when they are sent, with their media types."""
    json_type, boundary = "application/json", secrets.token_hex(8)
    form = f"multipart/form-data; boundary={boundary}"
    part = b'--%s\r\nContent-Disposition: form-data; name="a%%d"\r\n\r\nx\r\n' % boundary.encode()
    file = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="%%d"\r\n\r\nx\r\n' % boundary.encode()
    head = b"--%s\r\n" % boundary.encode()
    yield "deep lists", lambda: b"[" * 2_000_000, json_type
    yield "deep lists that end", lambda: b"[" * 100_000 + b"]" * 100_000, json_type
    yield "deep objects", lambda: b'{"a":' * 500_000, json_type
    yield "deep metadata", lambda: b'{"metadata":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, json_type
    yield "many keys", lambda: json.dumps({f"k{n}": n for n in range(500_000)}).encode(), json_type
    yield "one key often", lambda: b"{" + b'"a":1,' * 2_000_000 + b'"a":1}', json_type
    yield "a long number", lambda: b'{"image_base64":' + b"9" * 5_000_000 + b"}", json_type
    yield "a large exponent", lambda: b'{"input":{"shards":[1e999999999]}}', json_type
    yield "many shards", lambda: json.dumps({"input": {"shards": ["a"] * 1_500_000}}).encode(), json_type
    yield "a long text", lambda: json.dumps({"alt_text": "a" * 15_000_000, "image_base64": "aaaa"}).encode(), json_type
    yield "escapes", lambda: b'{"image_base64":"' + b"\\u0041" * 2_500_000 + b'"}', json_type
    yield "noise", lambda: rng.randbytes(3_000_000), json_type
    yield "UTF-16", lambda: json.dumps({"input": {"shards": ["a"]}}).encode("utf-16"), json_type
    yield "many parts", lambda: b"".join(part % n for n in range(100_000)) + head[:-2] + b"--\r\n", form
    yield "many files", lambda: b"".join(file % n for n in range(50_000)) + head[:-2] + b"--\r\n", form
    yield "no end", lambda: file % 1 + b"y" * 10_000_000, form
    yield "a long header of a part", lambda: head + b"X: " + b"y" * 10_000_000 + b"\r\n\r\nx\r\n", form
    yield "many headers of a part", lambda: head + b"X: y\r\n" * 1_500_000 + b"\r\nx\r\n", form
    yield "boundaries", lambda: head * 800_000, form
    yield "a long boundary", lambda: b"--" + b"b" * 60_000, "multipart/form-data; boundary=" + "b" * 60_000
    yield (
        "an encoded form",
        lambda: b"&".join(b"a%d=1" % n for n in range(1_000_000)),
        "application/x-www-form-urlencoded",
    )


def attack_as_browser(service: AttackedService) -> None:
    """What a page of another site can send: it must be refused; the service has no key and listens on loopback."""
    evil = "https://evil.example"
    image = {"file": ("a.jpg", b"no image")}
    forged = (
        ("POST", "/v1/captions", {"Origin": evil}),
        ("POST", "/v1/captions", {"Origin": "null"}),
        ("POST", "/v1/captions", {"Sec-Fetch-Site": "cross-site"}),
        ("POST", "/v1/batches", {"Origin": evil, "Content-Type": "text/plain"}),
        ("DELETE", "/v1/jobs/a1", {"Origin": evil}),
        ("GET", "/v1/jobs", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Origin": evil}),
        *(("GET", path, {"Host": "evil.example"}) for path in ("/", "/v1/jobs", "/docs", "/openapi.json")),
        *(("GET", "/v1/jobs", {"Host": host}) for host in ("127.0.0.1.evil.example", "localhost.evil", "a@b", "[::1")),
    )
    for method, path, headers in forged:
        options: Any = {"files": image} if path == "/v1/captions" else {}
        answer = service.caller.send(
            "browser", method, path, headers=headers, what=f"{method} {path} {headers}", **options
        )
        if answer is not None and not (400 <= answer.status_code < 500 and answer.status_code not in (404, 422)):
            told = f"browser: {method} {path} {headers}: {answer.status_code}"
            service.tally.add(service.tally.wrong, told)

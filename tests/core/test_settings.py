"""Settings: what a variable may be, what is refused in one line, and that no secret is printed."""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from strata import environment
from strata.addresses import AddressError, clean_key, redis_address, without_secrets
from strata.core.records import FailureNote
from strata.core.requests import JobRequest
from strata.core.settings import Settings, load_settings
from strata.errors import InvalidInput
from strata.jobs.envelope import envelope
from strata.logs import LogFormatter
from strata.queue.connection import connect
from tests.secrets import SECRET
from tests.servers.certificates import write_certificates


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the machine that runs the tests."""
    for name in (*environment.VARIABLES, "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def refusal(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    """The message for a variable's value, which is one line and names the variable."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput) as caught:
        load_settings()
    (line,) = caught.value.lines
    assert line.startswith(f"{name}: ") and len(line.splitlines()) == 1
    assert SECRET not in line and SECRET not in repr(caught.value.__cause__)
    return line


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"redis://:{SECRET}#1@host/0", "#, which must be written %23"),
        (f"redis://:{SECRET}[@host/0", "[ as %5B"),
        (f"redis://:{SECRET}]@host/0", "] as %5D"),
        (f"redis://:{SECRET}/@host/0", "/ as %2F"),
        (f"redis://:{SECRET} 1@host/0", "white space"),
        (f"redis://:{SECRET}\t@host/0", "white space"),
        (f"redis://:{SECRET}@host:port/0", "a port from 1 to 65535"),
        (f"redis://:{SECRET}@host:70000", "70000 is not from 1 to 65535"),
        (f"redis://:{SECRET}@host:0", "0 is not from 1 to 65535"),
        (f"redis://:{SECRET}@[::1:6379/0", "a port"),
        (f"redis://:{SECRET}@host/garbage", "only the number of a database"),
        (f"redis://:{SECRET}@host/0/1", "only the number of a database"),
        (f"redis://:{SECRET}@host?ssl_ca_certs=a", "it needs rediss://"),
        (f"rediss://host?ssl_cert_reqs={SECRET}", "?ssl_cert_reqs= must be one of none, optional, required"),
        (f"rediss://host?ssl_keyfile=/{SECRET}", "?ssl_keyfile= needs ?ssl_certfile="),
        (f"redis://host?pass={SECRET}", "unknown option ?pass="),
        (f"redis://host?socket_timeout={SECRET}", "?socket_timeout= must be a whole number"),
        (f":{SECRET}@host:6379", "must begin with one of redis://, rediss://, unix://"),
        ("host:6379", "must begin with"),
        (f"http://:{SECRET}@host", "must begin with"),
        ("garbage", "must begin with"),
        ("unix://", "an absolute path"),
        ("unix://redis.sock", "an absolute path"),
        (f"redis+sentinel://:{SECRET}@a,b", "the service's name"),
    ],
)
def test_a_redis_url_that_cannot_be_used(url: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told in refusal(monkeypatch, "REDIS_URL", url)
    with pytest.raises(AddressError):
        connect(url)  # the queue refuses the same


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://host", "redis://host:6379/0"),
        ("redis://:p%23%5B%40@host:7000/3", "redis://host:7000/3"),
        ("redis://user:p@a:@[::1]:7000/", "redis://[::1]:7000/0"),
        ("redis:///2", "redis://localhost:6379/2"),
        ("redis://host?db=4&client_name=a", "redis://host:6379/4"),
        ("rediss://user:p@host/1?ssl_cert_reqs=none&ssl_check_hostname=false", "rediss://host:6379/1"),
        ("unix:///run/my%20redis/redis.sock?db=2", "unix:///run/my redis/redis.sock"),
        ("redis+sentinel://:p@a,b:1/mine/2", "redis+sentinel://a:26379,b:1/mine/2"),
        ("rediss+sentinel://a/mine", "rediss+sentinel://a:26379/mine/0"),
    ],
)
def test_a_redis_url_and_how_it_is_printed(url: str, printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f" {url}\n")
    settings = load_settings()
    assert settings.redis_url is not None and settings.redis_url.get_secret_value() == url
    address = redis_address(url)
    assert str(address) == printed
    # the client's own parser sees the same server
    if not address.sentinel:
        keywords: dict[str, Any] = redis.connection.parse_url(url)
        assert address.password == keywords.get("password") and address.username == keywords.get("username")
        assert address.path == keywords.get("path", "") and keywords.get("db", 0) == address.database
        if address.hosts:
            host = keywords.get("host", "localhost"), keywords.get("port", 6379)
            assert address.hosts == (host,)


def test_the_files_of_tls_options_are_read_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_certificates(tmp_path)
    ca, certificate, key = (tmp_path / name for name in ("ca.pem", "server.pem", "server.key"))
    (text := tmp_path / "text").write_text(SECRET)
    pair = f"ssl_certfile={certificate}&ssl_keyfile={key}"
    for query in (f"ssl_ca_certs={ca}", f"ssl_ca_path={tmp_path}", pair, f"{pair}&ssl_ca_certs={ca}"):
        monkeypatch.setenv("REDIS_URL", f"rediss://host/0?{query}")
        assert load_settings().redis_url is not None
    for query, told in (
        (f"ssl_ca_certs={tmp_path / SECRET}", "?ssl_ca_certs= names what cannot be read: No such file"),
        (f"ssl_ca_certs={tmp_path}", "?ssl_ca_certs= names what cannot be read: Is a directory"),
        ("ssl_ca_certs=", "?ssl_ca_certs= names what cannot be read"),
        ("ssl_ca_certs=a%00b", "?ssl_ca_certs= names what cannot be read: it is no path"),
        (f"ssl_ca_path={ca}", "?ssl_ca_path= names what cannot be read: Not a directory"),
        (f"ssl_ca_certs={text}", "?ssl_ca_certs= does not hold certificates in PEM"),
        (f"ssl_certfile={certificate}", "?ssl_certfile= does not hold a certificate in PEM with its key"),
        (f"ssl_certfile={ca}&ssl_keyfile={key}", "(KEY_VALUES_MISMATCH)"),
        (f"{pair}&ssl_ca_certs={tmp_path / SECRET}", "?ssl_ca_certs= names what cannot be read"),
    ):
        assert told in refusal(monkeypatch, "REDIS_URL", f"rediss://:{SECRET}@host/0?{query}")
    # an encrypted key: its password is needed, and is not asked for on the terminal
    locked = serialization.BestAvailableEncryption(SECRET.encode())
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    for password in ("", "&ssl_password=wrong"):
        assert "?ssl_certfile= does not hold" in refusal(monkeypatch, "REDIS_URL", f"rediss://host?{pair}{password}")
    monkeypatch.setenv("REDIS_URL", f"rediss://host?{pair}&ssl_password={SECRET}")
    assert load_settings().redis_url is not None


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for url in (text, f"redis://{text}", f"redis+sentinel://{text}", f"unix://{text}", f"rediss://:{text}@host/0"):
        try:
            redis_address(url)
        except AddressError as error:
            assert len(str(error).splitlines()) == 1


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_quoted_password_is_read_and_never_printed(username: str, password: str) -> None:
    address = redis_address(f"redis://{quote(username, safe='')}:{quote(password, safe='')}@host:1/2")
    assert (address.username, address.password) == (username, password)
    printed = "RedisAddress(scheme='redis', hosts=(('host', 1),), path='', service='', database=2)"
    assert (str(address), repr(address)) == ("redis://host:1/2", printed)


@pytest.mark.parametrize(
    ("value", "roots"),
    [
        ("/data", ["/data"]),
        (" /data \n", ["/data"]),
        ("/data:/more", ["/data", "/more"]),
        ("data:more", ["data", "more"]),
        ("/data,/more", ["/data", "/more"]),
        ("/data:", ["/data"]),
        ("s3://bucket", ["s3://bucket"]),
        ("/data:s3://bucket/a", ["/data", "s3://bucket/a"]),
        ("s3://a:s3://b", ["s3://a", "s3://b"]),
        ("s3://a,gs://b", ["s3://a", "gs://b"]),
        ("http://host:8080/sets:/data", ["http://host:8080/sets", "/data"]),
        ('["/a:b", "s3://bucket"]', ["/a:b", "s3://bucket"]),
        ("memory://bucket", ["memory://bucket"]),
        ("~/photos", [str(Path.home() / "photos")]),
        ("$HOME/photos:${HOME}/b", [str(Path.home() / "photos"), str(Path.home() / "b")]),
    ],
)
def test_shard_roots(value: str, roots: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.home()))
    monkeypatch.setenv("STRATA_SHARD_ROOTS", value)
    assert load_settings().shard_roots == roots


def test_default_shard_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders of the working folder, not that folder: it may have keys, settings and the store."""
    monkeypatch.chdir(tmp_path)
    assert load_settings().shard_roots == [str(tmp_path / "shards"), str(tmp_path / "samples")]


@pytest.mark.parametrize(
    ("value", "moves"),
    [
        ("/data=/mnt/data", {"/data": "/mnt/data"}),
        ("s3://old=/new, /data=s3://bucket/data", {"s3://old": "/new", "/data": "s3://bucket/data"}),
        ('{"/data": "/mnt/a,b"}', {"/data": "/mnt/a,b"}),
    ],
)
def test_moved_roots(value: str, moves: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_MOVED_ROOTS", value)
    assert load_settings().moved_roots == moves
    assert load_settings(moved_roots=["/a=/b"]).moved_roots == {"/a": "/b"}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("STRATA_SHARD_ROOTS", "", "it names no folder or bucket"),
        ("STRATA_SHARD_ROOTS", ":", "it names no folder or bucket"),
        ("STRATA_SHARD_ROOTS", "[]", "it names no folder or bucket"),
        ("STRATA_SHARD_ROOTS", '["/data"', "not a JSON list"),
        ("STRATA_SHARD_ROOTS", "[1]", "not a JSON list"),
        pytest.param("STRATA_SHARD_ROOTS", "[" * 100_000, "not a JSON list", id="nested list"),
        pytest.param("STRATA_MOVED_ROOTS", '{"a":' * 100_000, "not a JSON object", id="nested object"),
        ("STRATA_SHARD_ROOTS", "foo://bucket", "foo:// cannot be used here"),
        ("STRATA_SHARD_ROOTS", "s3://", "the bucket is missing"),
        ("STRATA_SHARD_ROOTS", f"https://user:{SECRET}@host/sets", "with a user or key"),
        ("STRATA_SHARD_ROOTS", "$NOT_SET_AT_ALL/data", "$NOT_SET_AT_ALL in the path is not set"),
        ("STRATA_MOVED_ROOTS", "/data", "is not OLD=NEW"),
        ("STRATA_MOVED_ROOTS", "/data=", "is not OLD=NEW"),
        ("STRATA_MOVED_ROOTS", '{"/data"', "not a JSON object"),
        ("STRATA_MOVED_ROOTS", "/data=foo://bucket", "foo:// cannot be used here"),
        ("STRATA_STORE", "ftpx://", "ftpx:// cannot be used here"),
        ("STRATA_STORE", "foo://", "foo:// cannot be used here; right are a folder's path and s3://"),
        ("STRATA_STORE", "s33://bucket", "did you mean s3://?"),
        ("STRATA_STORE", "http://host/store", "http:// cannot be used here"),
        ("STRATA_STORE", "s3://", "the bucket is missing: s3://BUCKET/FOLDER"),
        ("STRATA_STORE", "s3:///folder", "the bucket is missing"),
        ("STRATA_STORE", f"s3://key:{SECRET}@bucket", "variables such as AWS_ACCESS_KEY_ID"),
        ("STRATA_STORE", __file__, "a file is there, but a folder is needed"),
        ("STRATA_STORE", "~nobodyatall/store", "the home folder of ~nobodyatall is not known"),
        ("STRATA_DATA_DIR", __file__, "a file is there"),
        ("STRATA_PROFILES_DIR", __file__, "a file is there"),
        ("STRATA_DATA_DIR", "${NOT_SET_AT_ALL}/data", "${NOT_SET_AT_ALL} in the path is not set"),
        ("STRATA_THREADS", "auto", "valid integer"),
        ("STRATA_THREADS", "0", "greater than or equal to 1"),
        ("STRATA_THREADS", "-1", "greater than or equal to 1"),
        ("STRATA_THREADS", "1e99", "valid integer"),
        ("STRATA_THREADS", "9" * 30, "less than or equal to 1024"),
        ("STRATA_PORT", "many", "valid integer"),
        ("STRATA_PORT", "70000", "less than or equal to 65535"),
        ("STRATA_PORT", "-1", "greater than or equal to 0"),
        ("STRATA_MAX_PIXELS", "0", "greater than or equal to 1"),
        ("STRATA_MAX_PIXELS", "inf", "valid integer"),
        ("STRATA_MAX_PIXELS", "9" * 5000, "as an integer"),
        ("STRATA_MAX_BODY_BYTES", "-5", "greater than or equal to 1"),
        ("STRATA_MAX_BODY_BYTES", "20MB", "valid integer"),
        ("STRATA_MAX_BODY_BYTES", "nan", "valid integer"),
        ("STRATA_HIGH_WATER", "0", "greater than or equal to 1"),
        ("STRATA_URL_PORTS", "0", "ports from 1 to 65535"),
        ("STRATA_URL_PORTS", "http", "valid integer"),
        ("STRATA_URL_PORTS", ",", "ports from 1 to 65535"),
        ("STRATA_URL_HOSTS", "https://example.org", "'https://example.org' is not a host's name; right are"),
        ("STRATA_URL_HOSTS", "a.org, *", "'*' is not a host's name; right are"),
        ("STRATA_ALLOWED_HOSTS", "a.org, example.org:80", "'example.org:80' is not a host's name; right are"),
        ("STRATA_LEASE_SECONDS", "nan", "finite number"),
        ("STRATA_LEASE_SECONDS", "inf", "finite number"),
        ("STRATA_LEASE_SECONDS", "0", "greater than 0"),
        ("STRATA_LEASE_SECONDS", "1e9", "less than or equal to 86400"),
        ("STRATA_PRIVATE_URLS", "maybe", "valid boolean"),
        ("STRATA_API_KEY", f"{SECRET} two", "white space"),
        ("STRATA_API_KEY", f"{SECRET}\nX-Other: 1", "white space or a control character"),
    ],
)
def test_a_value_that_cannot_be_used(name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told in refusal(monkeypatch, name, value)


def test_white_space_at_the_ends_of_a_value_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"THREADS": "3\n", "API_KEY": f" {SECRET}\r\n", "STORE": f"{tmp_path}/store ", "PRIVATE_URLS": "true\n"}
    for name, value in {**given, "DATA_DIR": f"{tmp_path} ", "PROFILE": "mine\n"}.items():
        monkeypatch.setenv(f"STRATA_{name}", value)
    settings = load_settings()
    assert settings.api_key is not None and settings.api_key.get_secret_value() == SECRET
    assert (settings.threads, settings.store, settings.private_urls) == (3, f"{tmp_path}/store", True)
    assert (settings.data_dir, settings.profile) == (tmp_path, "mine")


def test_an_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*environment.SETTINGS, "REDIS_URL"):
        if name not in ("STRATA_SHARD_ROOTS", "STRATA_HOST"):
            monkeypatch.setenv(name, "")
    assert load_settings() == Settings.model_validate({})


def test_a_path_with_a_tilde_is_below_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("DATA_DIR", "~/data"), ("STORE", "~/store"), ("PROFILES_DIR", "$HOME/profiles")):
        monkeypatch.setenv(f"STRATA_{name}", value)
    settings = load_settings()
    assert settings.data_dir == tmp_path / "data" and settings.profiles_dir == tmp_path / "profiles"
    assert settings.store_uri == f"{tmp_path}/store"


def test_the_variables_of_kubernetes_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    linked = {
        "STRATA_PORT": "tcp://10.0.0.1:80",
        "STRATA_SERVICE_HOST": "10.0.0.1",
        "STRATA_SERVICE_PORT": "80",
        "STRATA_SERVICE_PORT_HTTP": "80",
        "STRATA_PORT_8080_TCP": "tcp://10.0.0.1:80",
        "STRATA_PORT_8080_TCP_ADDR": "10.0.0.1",
        "STRATA_API_SERVICE_HOST": "10.0.0.1",
        "STRATA_API_PORT": "tcp://10.0.0.1:80",
    }
    for name, value in linked.items():
        monkeypatch.setenv(name, value)
    assert load_settings().port == Settings.model_fields["port"].default
    (line,) = environment.warnings(linked)
    assert "and 7 more: ignored, because Kubernetes" in line
    assert environment.warnings(linked, services=False) == []
    assert environment.own_variables(linked | {"A": "b", "STRATA_STORE": "s"}) == {"A": "b", "STRATA_STORE": "s"}


def test_an_unknown_variable_is_told_with_the_nearest_name() -> None:
    lines = environment.warnings({"STRATA_PROT": "1", "STRATA_APIKEY": SECRET, "STRATA_XYZ": "", "OTHER": ""})
    assert lines[0] == "STRATA_APIKEY: unknown variable, ignored; did you mean STRATA_API_KEY?"
    assert lines[1] == "STRATA_PROT: unknown variable, ignored; did you mean STRATA_PORT?"
    assert lines[2].startswith("STRATA_XYZ: unknown variable, ignored; there are: STRATA_ALLOWED_HOSTS, ")
    assert len(lines) == 3


def test_the_names_of_all_settings_are_known() -> None:
    assert set(environment.SETTINGS) == {f"STRATA_{name.upper()}" for name in Settings.model_fields}
    # and every variable that the code or the documentation names
    root = Path(environment.__file__).parents[1]
    files = [root / "README.md", root / "docker-compose.yml", *(root / "docs").rglob("*.md")]
    files += [path for folder in ("app", "models", "strata", "workers") for path in (root / folder).rglob("*.py")]
    named = {name for path in files for name in re.findall(r"\bSTRATA_[A-Z_]*[A-Z]\b", path.read_text("utf-8"))}
    kubernetes = {name for name in named if "SERVICE" in name}
    assert named - kubernetes <= set(environment.VARIABLES)


def test_no_secret_is_in_the_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_API_KEY", SECRET)
    monkeypatch.setenv("REDIS_URL", f"redis://user:{SECRET}@host/0")
    settings = load_settings()
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert SECRET not in text
    assert SECRET not in repr(redis_address(f"redis://user:{SECRET}@host/0"))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("see https://user:secret@host:1/a.tar?X-Amz-Signature=secret&a=b, and", "see https://host:1/a.tar?… and"),
        ("s3://key:se@cret@bucket/a", "s3://bucket/a"),
        ("'https://host/a?token=secret' failed", "'https://host/a?…' failed"),
        ("redis://:secret@h/0 rediss://u:secret@h", "redis://h/0 rediss://h"),
        ("mail a@b.c, no URL: a/b?c", "mail a@b.c, no URL: a/b?c"),
        ("https://host/people/@me", "https://host/people/@me"),
    ],
)
def test_a_text_without_the_secrets_of_its_urls(text: str, printed: str) -> None:
    assert without_secrets(text) == printed


@given(st.text())
def test_a_text_without_secrets_stays_so(text: str) -> None:
    once = without_secrets(text)
    assert without_secrets(once) == once


def test_a_key_is_sent_without_white_space_at_its_ends() -> None:
    assert clean_key(f"\n{SECRET}\t\n", "K") == SECRET
    for key in ("a b", "a\nb", "a\x00b", "a\x7fb"):
        with pytest.raises(AddressError, match=r"^K contains"):
            clean_key(key, "K")


def test_a_log_line_and_its_traceback_have_no_secrets() -> None:
    try:
        raise OSError(f"https://host/a.tar?X-Amz-Signature={SECRET} is away")
    except OSError:
        record = logging.LogRecord("s", logging.ERROR, "", 1, "redis://u:%s@host", (SECRET,), sys.exc_info())
    text = LogFormatter().format(record)
    assert SECRET not in text and "redis://host" in text and "OSError: https://host/a.tar?… is away" in text


def test_a_failure_and_an_envelope_have_no_secrets() -> None:
    note = FailureNote(stage="read", error_type="ReadError", detail=f"https://u:{SECRET}@host/a?sig={SECRET}: 500")
    assert note.detail == "https://host/a?… 500"
    request = JobRequest(
        id="a",
        kind="batch",
        shards=[],
        profile="p",
        fingerprints={},
        chunk_size=1,
        priority="lo",
        metadata={},
        created_at=datetime.now(UTC),
    )
    view = envelope(request, {"status": "failed", "error": f"redis://:{SECRET}@host is away"}, 0, None)
    assert view.error == "redis://host is away"

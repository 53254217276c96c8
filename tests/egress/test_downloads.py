"""Downloads for a caller: only checked addresses are connected to, and nothing that a server sends has no bound."""

from __future__ import annotations

import gzip
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.egress import EgressRules, RefusedAddress, sessions
from strata.egress.downloads import DownloadFailed, Pool, download
from strata.egress.sessions import tls_context
from tests.egress.web import Internet, Web, redirect, response, run, web_server
from tests.secrets import SECRET
from tests.servers.certificates import write_certificates

PUBLIC = EgressRules()
ANY_PORT = EgressRules(ports=(), private=True)


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture
def internet(web: Web, monkeypatch: pytest.MonkeyPatch) -> Internet:
    found = Internet(web, monkeypatch)
    found.names = {"images.example": ["93.184.216.34"], "secret.example": ["10.0.0.7"], "localhost": ["127.0.0.1"]}
    return found


def fetch(url: str, rules: EgressRules = PUBLIC, limit: int = 1000, seconds: float = 20) -> bytes:
    pool = Pool(10 * limit)
    try:
        found: bytes = run(download(url, rules, limit, seconds, pool))
        return found
    finally:
        assert pool.held == 0


def test_a_public_host_is_fetched_from_the_address_that_was_checked(web: Web, internet: Internet) -> None:
    web.pages["/a.png?sig=1"] = response(b"image")
    assert fetch("http://images.example/a.png?sig=1") == b"image"
    assert internet.connected == [("93.184.216.34", 80)] and internet.looked_up == ["images.example"]
    assert "\r\nHost: images.example\r\n" in web.heads[0] and "Accept-Encoding: identity" in web.heads[0]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "10.0.0.1"],
        ["192.0.0.192"],
        ["168.63.129.16"],
        ["::ffff:10.0.0.1"],
        ["fec0::1"],
        ["64:ff9b:1::808:808"],
        ["fe80::1%2"],
    ],
)
def test_a_name_with_an_address_that_is_not_public_is_refused(
    web: Web, internet: Internet, addresses: list[str]
) -> None:
    internet.names["evil.example"] = addresses
    with pytest.raises(RefusedAddress, match=r"'evil\.example' has an address that is not public"):
        fetch("http://evil.example/")
    assert not internet.connected and not web.asked


def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked(web: Web, internet: Internet) -> None:
    """DNS rebinding: the second answer is another one."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]])
    internet.names["rebind.example"] = lambda: next(answers)
    web.pages["/a"] = response(b"image")
    assert fetch("http://rebind.example/a") == b"image"
    assert internet.connected == [("93.184.216.34", 80)] and len(internet.looked_up) == 1


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/secret",
        "http://127.0.0.1/secret",
        "//127.0.0.1/secret",
        "http://localhost/secret",
        "http://secret.example/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://①②⑦.0.0.1/",
        "http://images.example:8080/",
        "http://images.example.:80/",
        "http://images.example\\@127.0.0.1/",
        "https://user:word@secret.example/",
    ],
)
def test_a_redirect_is_checked_as_the_first_address(web: Web, internet: Internet, target: str) -> None:
    web.pages["/a"] = redirect(target.format(port=web.port))
    web.pages["/secret"] = response(b"secret")
    with pytest.raises((RefusedAddress, DownloadFailed)) as caught:
        fetch("http://images.example/a")
    assert web.asked == ["/a"] and internet.connected == [("93.184.216.34", 80)]
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://images.example/", "gopher://a/", "http://", "http://["]
)
def test_a_redirect_to_something_else_than_a_web_address(web: Web, internet: Internet, target: str) -> None:
    web.pages["/a"] = redirect(target)
    with pytest.raises((RefusedAddress, DownloadFailed)):
        fetch("http://images.example/a")
    assert web.asked == ["/a"]


def test_redirects_among_public_hosts_are_followed_three_times(web: Web, internet: Internet) -> None:
    internet.names["cdn.example"] = ["193.0.6.139"]
    web.pages |= {"/0": redirect("/1"), "/1": redirect("http://cdn.example/2"), "/2": redirect("3")}
    web.pages["/3"] = response(b"image")
    assert fetch("http://images.example/0") == b"image"
    assert [host for host, _ in internet.connected] == ["93.184.216.34"] * 2 + ["193.0.6.139"] * 2
    web.pages["/3"] = redirect("/4")
    with pytest.raises(DownloadFailed, match="more than 3 redirects"):
        fetch("http://images.example/0")


def test_only_configured_hosts_and_ports(web: Web, internet: Internet) -> None:
    web.pages["/a"] = redirect("http://other.example/a")
    internet.names["other.example"] = ["93.184.216.35"]
    with pytest.raises(RefusedAddress, match=r"'other\.example' is not one of those"):
        fetch("http://images.example/a", EgressRules(hosts=("images.example",)))
    assert web.asked == ["/a"]
    web.pages["/b"] = response(b"image")
    assert fetch(f"{web.url}/b", EgressRules(ports=(web.port,), private=True)) == b"image"


def test_no_proxy_of_the_environment_is_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    web.pages["/a"] = response(b"image")
    assert fetch(f"{web.url}/a", ANY_PORT) == b"image"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(bytes(2**20))


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (response(bytes(1001)), "more than 1000 bytes"),
        (response(b"", Content_Length="99999999999"), "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5000), "more than 1000 bytes"),
        (CHUNKED + b"3e8\r\n" + bytes(1000) + b"\r\n1\r\na\r\n0\r\n\r\n", "more than 1000 bytes"),
        (CHUNKED + b"ffffffffffffffffff\r\n" + bytes(2000), "n"),
        (response(BOMB, Content_Encoding="gzip", Content_Length=str(len(BOMB))), "compressed"),
        (response(b"abc", Content_Length="10"), "broke before the response was complete"),
        (response(b"a", "200 OK", **{"X": "a" * 9000}), "not valid"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", "not valid"),
        (b"no HTTP at all\r\n\r\n", "not valid"),
        (b"", "broke"),
        (response(status="500 Oh"), "status 500"),
        (response(status="204 No Content"), "b''"),
        (response(status="302 Found"), "status 302"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + response(b"image"), "b'image'"),
    ],
)  # fmt: skip
def test_what_a_server_sends_is_bounded(web: Web, page: bytes, reason: str) -> None:
    web.pages["/a"] = page
    try:
        found = str(fetch(f"{web.url}/a", ANY_PORT))
    except DownloadFailed as error:
        found = str(error)
    assert reason in found and web.url not in found


def test_all_downloads_together_are_bounded(web: Web) -> None:
    web.pages["/a"] = response(bytes(500))
    with pytest.raises(OverflowError):
        run(download(f"{web.url}/a", ANY_PORT, 1000, 20, Pool(400)))


@pytest.mark.parametrize(
    ("begin", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b""),
    ],
)
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(web: Web, begin: bytes, drip: bytes) -> None:
    def answer(_: str, connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            time.sleep(0.05)
            connection.sendall(drip)

    web.pages["/a"] = answer
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match=r"no complete response within 0.3 seconds"):
        fetch(f"{web.url}/a", ANY_PORT, seconds=0.3)
    assert time.monotonic() - started < 60  # the server never ends


def test_a_name_server_that_does_not_answer_is_given_up(internet: Internet) -> None:
    internet.names["slow.example"] = lambda: time.sleep(1) or ["93.184.216.34"]  # type: ignore[func-returns-value]
    with pytest.raises(DownloadFailed, match=r"within 0.2 seconds"):
        fetch("http://slow.example/", seconds=0.2)


def test_what_cannot_be_reached_is_one_line(internet: Internet) -> None:
    with pytest.raises(DownloadFailed, match=r"^the host 'no\.example' cannot be found$"):
        fetch(f"http://no.example/a?X-Amz-Signature={SECRET}")
    with pytest.raises(DownloadFailed, match=r"cannot be reached: Connect call failed|Connection refused"):
        fetch(f"http://127.0.0.1:1/a?X-Amz-Signature={SECRET}", ANY_PORT)


def test_a_certificate_is_that_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_certificates(tmp_path)
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with web_server(own) as server:
        internet = Internet(server, monkeypatch)
        internet.names = {"localhost": ["93.184.216.34"], "images.example": ["93.184.216.34"]}
        server.pages["/a"] = response(b"image")
        with pytest.raises(DownloadFailed, match="certificate is not valid"):
            fetch("https://localhost/a")
        monkeypatch.setattr(sessions, "tls_context", lambda: ssl.create_default_context(cafile=tmp_path / "ca.pem"))
        assert fetch("https://localhost/a") == b"image"
        with pytest.raises(DownloadFailed, match="certificate is not valid"):
            fetch("https://images.example/a")


def test_the_certificates_of_a_process_are_read_once() -> None:
    assert tls_context() is tls_context()
    assert tls_context().verify_mode is ssl.CERT_REQUIRED and tls_context().check_hostname

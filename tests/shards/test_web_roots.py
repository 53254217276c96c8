"""Roots on a web server: redirects lead only to the root's own host and to public hosts, and reads are bounded."""

from __future__ import annotations

import gzip
import io
import json
import socket
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator

import fsspec
import pytest

from strata.egress import RefusedAddress
from strata.shards import SourceError, find_shards, index_shard, read_images
from strata.store import IndexRow, file_system, is_transient
from tests.egress.web import Internet, Web, redirect, response, web_server
from tests.fakes import jpeg
from tests.secrets import SECRET


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Web]:
    """Another server on loopback, which no root names."""
    with web_server() as server:
        server.pages["/secret.tar"] = response(tar(), Accept_Ranges="bytes")
        yield server


def tar() -> bytes:
    buffer, image = io.BytesIO(), jpeg(1)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size = len(image)
        archive.addfile(member, io.BytesIO(image))
    return buffer.getvalue()


def targets(web: Web, other: Web) -> list[str]:
    return [
        f"{other.url}/secret.tar",
        "http://169.254.169.254/secret.tar",
        "http://[::1]/secret.tar",
        "http://2130706433/secret.tar",
        f"http://localhost:{web.port}/secret.tar",
        f"https://127.0.0.1:{other.port}/secret.tar",
        "http://secret.example/secret.tar",
    ]


@pytest.mark.parametrize("number", range(7))
def test_a_redirect_out_of_the_root_is_not_followed(
    web: Web, other: Web, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    internet = Internet(web, monkeypatch)
    internet.names = {"localhost": ["127.0.0.1"], "secret.example": ["10.0.0.7"]}
    web.pages["/sets/a.tar"] = redirect(targets(web, other)[number])
    uri = f"{web.url}/sets/a.tar"
    with pytest.raises(SourceError, match=r"has an address that is not public|is not allowed|four decimal numbers"):
        index_shard(uri)
    (result,) = read_images([IndexRow("a", uri, 0, 10, None)])
    assert isinstance(result, Exception) and not is_transient(result)
    with pytest.raises(SourceError, match="cannot be read"):
        find_shards([f"@{uri}"], [f"{web.url}/sets"])
    # nothing but the first address was connected to
    assert set(internet.connected) == {("127.0.0.1", web.port)} and not other.asked
    assert set(web.asked) == {"/sets/a.tar"}


def test_a_list_with_a_signature_is_a_list(web: Web) -> None:
    web.pages["/sets/a.jpg"] = response(b"image")
    lines = json.dumps({"image": "a.jpg"}).encode()
    web.pages["/sets/list.jsonl?X-Amz-Signature=1/2.tar"] = response(lines, Accept_Ranges="bytes")
    (uri,) = find_shards([f"{web.url}/sets/list.jsonl?X-Amz-Signature=1/2.tar"], [f"{web.url}/sets"])
    assert read_images(index_shard(uri, [f"{web.url}/sets"]).rows) == [b"image"]


def test_an_image_of_a_list_that_redirects_out_of_the_root_is_a_row_with_a_reason(web: Web, other: Web) -> None:
    web.pages["/sets/a.jpg"] = redirect(f"{other.url}/secret.tar?X-Amz-Signature={SECRET}")
    lines = [json.dumps({"image": name}) for name in ("a.jpg", f"{other.url}/secret.tar", "http://8.8.8.8/a.jpg")]
    web.pages["/sets/list.jsonl"] = response("\n".join(lines).encode(), Accept_Ranges="bytes")
    index = index_shard(f"{web.url}/sets/list.jsonl", [f"{web.url}/sets"])
    errors = index.table.column("error").to_pylist()
    assert "RefusedAddress" in errors[0] and all("outside the folders" in error for error in errors[1:])
    assert not other.asked and SECRET not in str(errors)


def test_redirects_to_the_own_host_and_to_public_hosts_are_followed(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    internet = Internet(web, monkeypatch)
    internet.names = {"cdn.example": ["93.184.216.34"], "images.example": ["10.0.0.7"]}
    body = tar()
    web.pages |= {"/sets/a.tar": redirect("/b.tar"), "/b.tar": redirect("http://cdn.example/c.tar")}
    web.pages["/c.tar"] = response(body)
    index = index_shard(f"{web.url}/sets/a.tar")
    assert index.table.num_rows == 1 and index.failure is None
    assert ("93.184.216.34", 80) in internet.connected
    # a root with a name in a private network
    assert file_system("http://images.example/c.tar")[0].cat_file("http://images.example/c.tar") == body
    assert internet.connected[-1] == ("10.0.0.7", 80)


def test_a_proxy_of_the_users_configuration_is_asked(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """It, and not we, resolves the names; addresses that are not public are refused all the same."""
    internet = Internet(web, monkeypatch)
    internet.names = {"proxy.example": ["127.0.0.1"]}
    monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"trust_env": True}})
    monkeypatch.setenv("http_proxy", f"http://proxy.example:{web.port}")
    web.pages |= {"http://files.example/a": redirect("http://b.example/a"), "http://b.example/a": response(b"image")}
    web.pages["http://files.example/c"] = redirect("http://10.0.0.7/a")
    filesystem, _ = file_system("http://files.example/a")
    assert filesystem.cat_file("http://files.example/a") == b"image"
    with pytest.raises(RefusedAddress):
        filesystem.cat_file("http://files.example/c")
    assert set(internet.looked_up) == {"proxy.example"} and len(web.asked) == 3


def endless(target: str, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n\r\n")
    for _ in range(500):
        connection.sendall(bytes(2**18))


def test_a_read_takes_no_more_memory_than_its_range(web: Web) -> None:
    packed = gzip.compress(bytes(2**27))
    web.pages["/bomb"] = response(packed, "206 Partial Content", Content_Encoding="gzip")
    web.pages["/endless"] = endless
    filesystem, _ = file_system(f"{web.url}/bomb")
    filesystem.exists(f"{web.url}/none")  # its session exists
    tracemalloc.start()
    try:
        for name in ("bomb", "endless"):
            assert len(filesystem.cat_file(f"{web.url}/{name}", start=0, end=1000)) == 1000
            with filesystem.open(f"{web.url}/{name}", size=10**9, block_size=1000) as file:
                assert len(file.read(1000)) == 1000
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_a_server_that_ignores_the_range_is_an_error_and_no_wrong_bytes(web: Web) -> None:
    web.pages["/a.tar"] = response(tar())
    (result,) = read_images([IndexRow("a", f"{web.url}/a.tar", 512, 100, None)])
    assert isinstance(result, OSError) and "does not send parts of files" in str(result) and not is_transient(result)
    # a whole file is the same with and without ranges
    (result,) = read_images([IndexRow("a", f"{web.url}/a.tar", 0, len(tar()), None)])
    assert result == tar()


def test_a_slow_server_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(target: str, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 206 Partial Content\r\n\r\n")
        while True:
            connection.sendall(b"a")
            threading.Event().wait(0.02)

    monkeypatch.setattr("strata.store.web_files.PATIENCE_SECONDS", 0.2)
    web.pages["/a.jpg"] = drip
    (result,) = read_images([IndexRow("a", f"{web.url}/a.jpg", 0, 1000, None)])
    assert isinstance(result, TimeoutError) and is_transient(result)


def test_a_refused_address_names_the_host(web: Web) -> None:
    web.pages["/a"] = redirect(f"http://10.0.0.7/a?sig={SECRET}")
    with pytest.raises(RefusedAddress, match=r"'10\.0\.0\.7' has an address that is not public") as caught:
        file_system(f"{web.url}/a")[0].cat_file(f"{web.url}/a")
    assert SECRET not in str(caught.value)

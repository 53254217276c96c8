"""A web server whose answers a test writes byte by byte, and a stub of DNS and of connections to public addresses."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import aiohappyeyeballs
import pytest

Answer = Callable[[str, socket.socket], None]  # is given the request's target, and the connection


def response(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """A whole response."""
    lines = {"Content-Length": str(len(body)), "Connection": "close"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def redirect(url: str) -> bytes:
    """A response that redirects."""
    return response(status="302 Found", Location=url)


class Web:
    """A server on 127.0.0.1. pages: whole responses by target, or functions that write to the connection."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.pages: dict[str, bytes | Answer] = {}
        self.asked: list[str] = []  # targets
        self.heads: list[str] = []  # the requests
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), self._tls.wrap_socket(connection, True) if self._tls else connection as connection:
            head = b""
            while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
                head += piece
            if not head:
                return
            target = head.split(b" ")[1].decode("latin-1")
            self.asked.append(target)
            self.heads.append(head.decode("latin-1"))
            page = self.pages.get(target, response(status="404 Not Found"))
            if callable(page):
                page(target, connection)
            else:
                # as a web server, without a body for HEAD
                connection.sendall(page.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.startswith(b"HEAD") else page)


@contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """A server, until the block ends. tls: its certificate."""
    server = Web(tls)
    try:
        yield server
    finally:
        server.close()


class Internet:
    """What stands for the Internet: names with their addresses, and one server behind all public addresses.

    A connection to a loopback address goes where it should, one to another address goes to the server.
    """

    def __init__(self, server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[str] | Callable[[], list[str]]] = {}
        self.connected: list[tuple[str, int]] = []
        self.looked_up: list[str] = []
        self._server, self._start = server, aiohappyeyeballs.start_connection
        monkeypatch.setattr("socket.getaddrinfo", self._look_up)
        monkeypatch.setattr("aiohappyeyeballs.start_connection", self._connect)

    def _look_up(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.looked_up.append(host)
        known = self.names.get(host)
        if known is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = known() if callable(known) else known
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (address, port, 0, 0) if ":" in address else (address, port))
            for kind, address in zip(kinds, addresses, strict=True)
        ]

    async def _connect(self, addr_infos: Any, **options: Any) -> socket.socket:
        host, port = addr_infos[0][4][:2]
        self.connected.append((host, port))
        if not host.startswith("127."):
            addr_infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self._server.port))]
        return await self._start(addr_infos, **options)


def run(coroutine: Any) -> Any:
    """The result of a coroutine."""
    return asyncio.run(coroutine)

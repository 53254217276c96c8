"""The studio below a path prefix, behind a proxy that strips it, as nginx does with `location /strata/`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from playwright.sync_api import expect

from tests.studio.conftest import Opener, Scenes
from tests.studio.scene_machine import write_scenes
from tests.studio.test_describe import describe

PREFIX = "/tools/strata"


@contextmanager
def below_prefix(url: str) -> Iterator[str]:
    """The address of a service below the prefix."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # the end of an answer is the end of its connection

        def do_GET(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            target = url + self.path.removeprefix(PREFIX)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            with client.stream(self.command, target, headers=headers, content=body) as answer:
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name not in ("transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in answer.iter_raw():
                        self.wfile.write(piece)
                except BrokenPipeError:
                    pass  # the page was left while its events were sent

        do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    # one client: each makes a context for TLS, which takes longer than all else here
    with httpx.Client(timeout=120) as client, ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def below(scenes: Scenes) -> Iterator[str]:
    """The address of the studio below the prefix."""
    with below_prefix(scenes.url) as address:
        yield address


def test_it_works_below_a_prefix(below: str, scenes: Scenes, opened: Opener) -> None:
    shard = write_scenes(scenes.shards / "below.tar", range(500, 503))
    with opened(below) as page:
        describe(page)
        expect(page.locator(".sentences")).to_be_visible()
        page.reload()
        expect(page.locator(".panzoom img")).to_have_js_property("complete", True)
        page.goto(f"{below}#/jobs/new")
        page.get_by_label("Shards, one a line").fill(shard)
        page.get_by_role("button", name="Submit the job").click()
        expect(page.locator(".chip", has_text="completed")).to_be_visible()
        page.get_by_role("link", name="000000501").click()
        expect(page.locator(".sentences")).to_be_visible()
        assert page.url.startswith(below)
        with page.expect_navigation():
            page.get_by_role("link", name="API", exact=True).click()
        assert page.url == f"{below}docs"

"""The pages work under their policies, and pages of other origins can do nothing here."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from strata.queue.queue import Queue
from tests.fakes import jpeg
from tests.service import listening_service
from tests.studio.conftest import Opener, Scenes

ANYTHING = ("",)  # a browser tells in its console what it has refused to a page
# an image as a page has it
FILE = f"""new File([Uint8Array.from(atob("{base64.b64encode(jpeg()).decode()}"), (c) => c.charCodeAt(0))],
  "a.jpg", {{ type: "image/jpeg" }})"""


class _Blank(BaseHTTPRequestHandler):
    """A page of somebody else."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>other</title><body></body>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """The origin of somebody else's page: the same host, another port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def url(scenes: Scenes) -> str:
    """The address of a service without a key, as on a person's machine."""
    return scenes.url


def _jobs(url: str) -> int:
    return len(httpx.get(f"{url}/v1/jobs?limit=200", timeout=60).json()["jobs"])


@pytest.mark.parametrize(("path", "shown"), [("/docs", ".opblock"), ("/redoc", "h1")])
def test_the_documentation_is_shown(opened: Opener, url: str, path: str, shown: str) -> None:
    # Redoc would load a logo from its vendor, which the policy blocks
    with opened(url + path, expected=("img-src", "cdn.redoc.ly")) as page:
        expect(page.locator(shown).first).to_be_visible()


@pytest.fixture(params=["another port", "another name"])
def foreign(request: pytest.FixtureRequest, opened: Opener, other: str) -> Iterator[Page]:
    """A page of another origin."""
    origin = other if request.param == "another port" else other.replace("127.0.0.1", "evil.example")
    with opened(f"{origin}/", expected=ANYTHING) as page:
        yield page


def test_a_foreign_page_cannot_post(foreign: Page, url: str) -> None:
    before = _jobs(url)
    # by a script, in both modes, and with the JSON that needs no question before it
    for mode in ("cors", "no-cors"):
        foreign.evaluate(_fetch(f"{url}/v1/captions", f"{{method: 'POST', mode: '{mode}', body: form}}"))
        json_body = "new Blob(['{}'], {type: 'text/plain'})"
        foreign.evaluate(_fetch(f"{url}/v1/batches", f"{{method: 'POST', mode: '{mode}', body: {json_body}}}"))
    foreign.evaluate(f"navigator.sendBeacon('{url}/v1/captions', new FormData())")
    # by a form, which goes to the answer
    foreign.evaluate(f"""(() => {{
      const form = document.createElement("form"), input = document.createElement("input"), data = new DataTransfer();
      data.items.add({FILE});
      Object.assign(form, {{ action: "{url}/v1/captions", method: "POST", enctype: "multipart/form-data" }});
      Object.assign(input, {{ type: "file", name: "file", files: data.files }});
      form.append(input);
      document.body.append(form);
      form.submit();
    }})()""")
    foreign.wait_for_url(f"{url}/**")
    expect(foreign.locator("body")).to_contain_text("origin-not-allowed")
    assert _jobs(url) == before


def test_a_foreign_page_cannot_read(foreign: Page, url: str) -> None:
    for path in ("/v1/jobs", "/", "/healthz", "/openapi.json"):
        assert foreign.evaluate(_fetch(url + path, "{}")) == "TypeError"
        assert foreign.evaluate(_fetch(url + path, "{mode: 'no-cors'}")) == "TypeError"
    for element, path in (("script", "static/studio/theme.js"), ("img", "static/api_docs/favicon-32x32.png")):
        loaded = f"""new Promise((done) => {{
          const made = document.createElement("{element}");
          made.onload = () => done("loaded");
          made.onerror = () => done("refused");
          made.src = "{url}/{path}";
          document.body.append(made);
        }})"""
        assert foreign.evaluate(loaded) == "refused"


def test_a_foreign_page_cannot_embed(foreign: Page, url: str) -> None:
    foreign.evaluate(f"""new Promise((done) => {{
      const frame = document.createElement("iframe");
      frame.onload = done;
      frame.src = "{url}/";
      document.body.append(frame);
    }}).then(() => 1)""")
    # the frame's address is told a moment after it was loaded
    (frame,) = foreign.frames[1:]
    frame.wait_for_url("chrome-error://chromewebdata/")


def test_a_link_opens_the_page(foreign: Page, url: str) -> None:
    foreign.evaluate(f"""(() => {{
      const link = document.createElement("a");
      link.href = "{url}/";
      document.body.append(link);
      link.click();
    }})()""")
    foreign.wait_for_url(f"{url}/")
    expect(foreign).to_have_title("Describe – Strata")


def test_a_name_with_a_changed_address_is_not_served(opened: Opener, url: str) -> None:
    evil = url.replace("127.0.0.1", "evil.example")
    # the page that was loaded before its name got this address is of the same origin, and has no policy of ours
    with opened(f"{evil}/", expected=ANYTHING, bypass_csp=True) as page:
        expect(page.locator("body")).to_contain_text("host-not-allowed")
        assert page.evaluate(_fetch("/v1/jobs", "{}")) == "basic 421"
        assert page.evaluate(_fetch("/v1/captions", "{method: 'POST', body: form}")) == "basic 421"


def test_an_allowed_origin_can_post_and_read(opened: Opener, other: str, valkey_url: str, tmp_path: Path) -> None:
    # that the tests above could fail: the same requests succeed if the operator allows them
    queue = Queue(valkey_url)
    with (
        listening_service(queue, tmp_path, cors_origins=other) as port,
        opened(f"{other}/", expected=ANYTHING) as page,
    ):
        url = f"http://127.0.0.1:{port}"
        assert page.evaluate(_fetch(f"{url}/v1/captions", "{method: 'POST', body: form}")) == "cors 202"
        assert page.evaluate(_fetch(f"{url}/v1/jobs", "{headers: {'X-API-Key': 'a'}}")) == "cors 200"


def _fetch(url: str, options: str) -> str:
    """A script that sends a request: its value is the type and status of the answer, or the name of the error."""
    return f"""(() => {{
      const form = new FormData();
      form.append("file", {FILE});
      return fetch({json.dumps(url)}, {options}).then(
        (answer) => `${{answer.type}} ${{answer.status}}`, (error) => error.name);
    }})()"""

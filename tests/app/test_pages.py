"""The pages in a real browser: they work under their policies, and pages of other origins can do nothing here."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from strata.queue.queue import Queue
from tests.browser import Browser, Page, running_browser
from tests.fakes import jpeg
from tests.raw_redis import raw_redis
from tests.service import listening_service

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
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests here."""
    with running_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """The origin of somebody else's page: the same host, another port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def url(browser: Browser, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with workers and no key, as on a person's machine."""
    queue = Queue(valkey_url)
    raw_redis(queue).flushall()
    with listening_service(queue, tmp_path_factory.mktemp("pages"), workers=True) as port:
        yield f"http://127.0.0.1:{port}"


def _jobs(url: str) -> int:
    return len(httpx.get(f"{url}/v1/jobs?limit=200").json()["jobs"])


@pytest.mark.parametrize(
    ("path", "shown"),
    [("/docs", "document.querySelectorAll('.opblock').length > 10"), ("/redoc", "document.querySelector('h1')")],
)
def test_the_documentation_is_shown(browser: Browser, url: str, path: str, shown: str) -> None:
    with browser.page(url + path) as page:
        page.wait(f"!!({shown})")
        assert page.run("violations.filter((text) => !text.startsWith('img-src'))") == []


@pytest.fixture(params=["another port", "another name"])
def foreign(request: pytest.FixtureRequest, browser: Browser, other: str) -> Iterator[Page]:
    """A page of another origin."""
    origin = other if request.param == "another port" else other.replace("127.0.0.1", "evil.example")
    with browser.page(f"{origin}/") as page:
        yield page


def test_a_foreign_page_cannot_post(foreign: Page, url: str) -> None:
    before = _jobs(url)
    # by a script, in both modes, and with the JSON that needs no question before it
    for mode in ("cors", "no-cors"):
        foreign.run(_fetch(f"{url}/v1/captions", f"{{method: 'POST', mode: '{mode}', body: form}}"))
        json_body = "new Blob(['{}'], {type: 'text/plain'})"
        foreign.run(_fetch(f"{url}/v1/batches", f"{{method: 'POST', mode: '{mode}', body: {json_body}}}"))
    foreign.run(f"navigator.sendBeacon('{url}/v1/captions', new FormData())")
    # by a form, which goes to the answer
    foreign.run(f"""(() => {{
      const form = document.createElement("form"), input = document.createElement("input"), data = new DataTransfer();
      data.items.add({FILE});
      Object.assign(form, {{ action: "{url}/v1/captions", method: "POST", enctype: "multipart/form-data" }});
      Object.assign(input, {{ type: "file", name: "file", files: data.files }});
      form.append(input);
      document.body.append(form);
      form.submit();
    }})()""")
    assert "origin-not-allowed" in foreign.wait(
        f"location.href.startsWith('{url}') && document.readyState === 'complete' && document.body.textContent"
    )
    assert _jobs(url) == before


def test_a_foreign_page_cannot_read(foreign: Page, url: str) -> None:
    for path in ("/v1/jobs", "/", "/healthz", "/openapi.json"):
        assert foreign.run(_fetch(url + path, "{}")) == "TypeError"
        assert foreign.run(_fetch(url + path, "{mode: 'no-cors'}")) == "TypeError"
    for element in ("script", "img"):
        loaded = f"""new Promise((done) => {{
          const made = document.createElement("{element}");
          made.onload = () => done("loaded");
          made.onerror = () => done("refused");
          made.src = "{url}/{"static/studio/theme.js" if element == "script" else "static/api_docs/favicon-32x32.png"}";
          document.body.append(made);
        }})"""
        assert foreign.run(loaded) == "refused"


def test_a_foreign_page_cannot_embed(foreign: Page, url: str) -> None:
    foreign.run(f"""new Promise((done) => {{
      const frame = document.createElement("iframe");
      frame.onload = done;
      frame.src = "{url}/";
      document.body.append(frame);
    }}).then(() => 1)""")
    assert foreign.frames() == ["chrome-error://chromewebdata/"]


def test_a_link_opens_the_page(foreign: Page, url: str) -> None:
    foreign.run(f"""(() => {{
      const link = document.createElement("a");
      link.href = "{url}/";
      document.body.append(link);
      link.click();
    }})()""")
    foreign.wait(f"location.href === '{url}/' && document.title === 'Strata'")


def test_a_name_with_a_changed_address_is_not_served(browser: Browser, url: str) -> None:
    evil = url.replace("127.0.0.1", "evil.example")
    with browser.page(f"{evil}/") as page:
        assert "host-not-allowed" in page.run("document.body.textContent")
        # the page that was loaded before its name got this address is of the same origin, and has no policy of ours
        page.call("Page.setBypassCSP", enabled=True)
        page.open(f"{evil}/healthz")
        assert page.run(_fetch("/v1/jobs", "{}")) == "basic 421"
        assert page.run(_fetch("/v1/captions", "{method: 'POST', body: form}")) == "basic 421"


def test_an_allowed_origin_can_post_and_read(browser: Browser, other: str, valkey_url: str, tmp_path: Path) -> None:
    # that the tests above could fail: the same requests succeed if the operator allows them
    queue = Queue(valkey_url)
    with listening_service(queue, tmp_path, cors_origins=other) as port, browser.page(f"{other}/") as page:
        url = f"http://127.0.0.1:{port}"
        assert page.run(_fetch(f"{url}/v1/captions", "{method: 'POST', body: form}")) == "cors 202"
        assert page.run(_fetch(f"{url}/v1/jobs", "{headers: {'X-API-Key': 'a'}}")) == "cors 200"


def _fetch(url: str, options: str) -> str:
    """A script that sends a request: its value is the type and status of the answer, or the name of the error."""
    return f"""(() => {{
      const form = new FormData();
      form.append("file", {FILE});
      return fetch({json.dumps(url)}, {options}).then(
        (answer) => `${{answer.type}} ${{answer.status}}`, (error) => error.name);
    }})()"""

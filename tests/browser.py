"""A real browser for tests: Chromium without a window, driven over the pipe of its DevTools protocol.

The protocol is JSON with a zero byte after each message, so no library is needed.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LONG = 120.0  # seconds: far more than anything here takes
SERVER_ERROR = -32000  # a correct command that the state of the page does not allow
# names resolve to loopback or to nothing, so that no test leaves the machine
_RESOLVER = "MAP evil.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-site-isolation-trials",  # frames of other sites are in the tree of their page
    f"--host-resolver-rules={_RESOLVER}",
)
# what the page's policy has blocked; it runs before the page's own scripts
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`));
"""


class ProtocolError(Exception):
    """The browser has refused a command; code: the error's number in the protocol."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        super().__init__(f"{method}: {error}")
        self.code: int = error["code"]


class Browser:
    """A running browser. Use it from one thread."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._ids = itertools.count(1)
        self._read = b""

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol. Events are passed over. Raises ProtocolError."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise ProtocolError(method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            piece = os.read(self._answers, 2**16)
            assert piece, "the browser has ended"
            self._read += piece
        text, _, self._read = self._read.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        return answer

    @contextmanager
    def page(self, url: str) -> Iterator[Page]:
        """A new tab with a page, closed at the end."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        page.call("Page.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
        page.open(url)
        try:
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)


class Page:
    """A tab of the browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command for this tab."""
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Go to a URL, as a person does who types it."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; of a promise, its value."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression as soon as it is true, in this page or in one that takes its place meanwhile."""
        end = time.monotonic() + LONG
        while True:
            try:
                answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
            except ProtocolError as error:
                # the page was left during the evaluation, or the next one cannot run scripts yet
                if error.code != SERVER_ERROR or time.monotonic() >= end:
                    raise
            else:
                value = answer["result"].get("value")
                if value and "exceptionDetails" not in answer:
                    return value
                assert time.monotonic() < end, (script, self.run("document.documentElement.outerHTML"))
            time.sleep(0.02)

    def frames(self) -> list[str]:
        """The URLs of the frames within the page; that of an error if a frame was blocked."""
        tree = self.call("Page.getFrameTree")["frameTree"]
        return [child["frame"]["url"] for child in tree.get("childFrames", [])]


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """Start the browser with an empty profile in a folder. The test is skipped if there is none on the machine."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)}")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # the browser reads from descriptor 3 and writes to 4; sh of Debian takes descriptors up to 9 only
    shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", program, f"--user-data-dir={folder}", *_OPTIONS],
        pass_fds=(theirs_in, theirs_out),
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        os.close(ours_out)
        process.terminate()
        try:
            process.wait(120)
        finally:
            process.kill()
            os.close(ours_in)

"""A plug-in of pytest: searches all logs of a session for the secrets of its tests, and fails it if one is found.

All secrets of the tests contain SECRET (tests/secrets.py). It is searched for in

- every log record of this process and its traceback, whatever its level;
- what tests and child processes print: pytest captures both, also what a test reads with capsys or capfd;
- what `subprocess` returns of a child process, and every file that a child process prints to;
- the files in pytest's temporary folders that hold logs, job files and progress: *.log, *.json, *.jsonl, *.txt.

A test that has to print a secret is marked `prints_secret`; a file is exempt if its name begins with `secret`.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.secrets import SECRET

SUFFIXES = (".log", ".json", ".jsonl", ".txt")
LEVEL = logging.INFO  # that of Strata's own log; httpx logs requests with their URLs at this level


class LogSearch(logging.Handler):
    """What was found so far, where it was found. files: those that child processes print to."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.found: list[str] = []
        self.files: set[Path] = set()
        self.test = "outside of tests"
        self.exempt = False
        self.reported = 0  # how many of those found belong to reports
        self._plain = logging.Formatter()

    def search(self, text: str | bytes | None, where: str) -> None:
        """Search a text; the secret's surroundings are kept."""
        if not text or self.exempt:
            return
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        at = plain.find(SECRET)
        if at >= 0:
            self.found.append(f"{self.test}: {where}: {plain[max(0, at - 100) : at + 40]!r}")

    def emit(self, record: logging.LogRecord) -> None:
        """Search a log record with its traceback."""
        self.search(self._plain.format(record), f"log of {record.name}")

    def search_files(self, folder: Path | None = None) -> None:
        """Search the files that child processes print to, and those with SUFFIXES in a folder."""
        below = (path for path in folder.rglob("*") if path.suffix in SUFFIXES) if folder else ()
        for path in {*self.files, *below}:
            if path.is_file() and not path.name.startswith("secret"):
                self.search(path.read_bytes(), str(path))


SEARCH = pytest.StashKey[LogSearch]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to search."""
    config.addinivalue_line("markers", "prints_secret: the test itself prints or logs SECRET")
    search = config.stash[SEARCH] = LogSearch()
    logging.getLogger().addHandler(search)
    logging.getLogger().setLevel(LEVEL)
    _watch_processes(search)
    _watch_fixtures(search)


def _watch_processes(search: LogSearch) -> None:
    """Search the output of child processes, and remember the files that they print to."""
    begin, communicate = subprocess.Popen.__init__, subprocess.Popen.communicate

    def watched_begin(process: Any, *args: Any, **named: Any) -> None:
        for stream in (named.get("stdout"), named.get("stderr")):
            name = getattr(stream, "name", None)
            if isinstance(name, str) and Path(name).is_file():
                search.files.add(Path(name))
        begin(process, *args, **named)

    def watched_communicate(process: Any, *args: Any, **named: Any) -> Any:
        output = communicate(process, *args, **named)
        for text in output:
            search.search(text, f"output of {process.args}"[:200].replace(SECRET, "…"))
        return output

    subprocess.Popen.__init__ = watched_begin  # type: ignore[assignment, method-assign]
    subprocess.Popen.communicate = watched_communicate  # type: ignore[assignment, method-assign]


def _watch_fixtures(search: LogSearch) -> None:
    """Search what tests read with capsys and capfd, which pytest does not report any more."""
    readouterr = pytest.CaptureFixture.readouterr

    def watched(fixture: Any) -> Any:
        result = readouterr(fixture)
        for text in result:
            search.search(text, "printed, and read by the test")
        return result

    pytest.CaptureFixture.readouterr = watched  # type: ignore[assignment, method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Name the test in which something is found."""
    search = item.config.stash[SEARCH]
    search.test, search.exempt = item.nodeid.replace(SECRET, "…"), item.get_closest_marker("prints_secret") is not None
    try:
        return (yield)
    finally:
        search.exempt = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Search what the test and its children printed; a test whose logs have the secret fails."""
    report = yield
    search = item.config.stash[SEARCH]
    if report.passed:  # the text of a failure has the test's own source
        search.search(report.capstdout, "stdout")
        search.search(report.capstderr, "stderr")
    if report.when == "teardown":
        search.search_files()
        search.files.clear()
    new, search.reported = search.found[search.reported :], len(search.found)
    if new and report.passed:
        report.outcome, report.longrepr = "failed", "a secret was found in the logs:\n" + "\n".join(new)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search the files of the session, and fail it if anything was found."""
    search = session.config.stash[SEARCH]
    factory = getattr(session.config, "_tmp_path_factory", None)
    search.test = "a file of the session"
    if factory is not None and factory._basetemp is not None:
        search.search_files(factory.getbasetemp())
    # a process of pytest-xdist hands what it has found to the one that ends the session
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["secrets"] = search.found
    if search.found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist has found."""
    node.config.stash[SEARCH].found += getattr(node, "workeroutput", {}).get("secrets", [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print where secrets were found."""
    found = config.stash[SEARCH].found
    if found:
        terminalreporter.section("secrets in logs")
        for line in found:
            terminalreporter.line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop searching the log."""
    logging.getLogger().removeHandler(config.stash[SEARCH])

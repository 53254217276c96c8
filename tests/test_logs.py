"""The log: one form for all lines, with ids and times, and without secrets."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.logs import FIELDS, JsonFormatter, LogFormatter, adopt_libraries, log_context

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def record(message: str = "hello %s", *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("strata.x", logging.WARNING, __file__, 1, message, args or ("you",), None)
    made.__dict__.update(more)
    return made


def with_error() -> logging.LogRecord:
    try:
        raise ValueError("https://user:word@host/a?b=c is wrong")
    except ValueError:
        return record(exc_info=sys.exc_info())


def test_a_line_of_text_has_a_time_a_level_and_ids() -> None:
    with log_context(job="j1", chunk=""), log_context(request="r1"):
        line = LogFormatter().format(record())
    time, _, rest = line.partition(" ")
    assert RFC3339.fullmatch(time) and rest == "WARNING strata.x: hello you job=j1 request=r1"
    assert LogFormatter().format(record()).endswith("hello you")


def test_a_line_of_json_has_the_same_and_the_traceback_as_a_field() -> None:
    with log_context(chunk="c1"):
        text = JsonFormatter().format(with_error())
    assert "\n" not in text
    line = json.loads(text)
    assert datetime.fromisoformat(line["time"]).utcoffset() is not None
    assert (line["level"], line["logger"], line["message"], line["chunk"]) == ("warning", "strata.x", "hello you", "c1")
    assert "Traceback" in line["exception"] and "https://host/a?…" in line["exception"]
    fields = {"status": 200, "route": "/v1", "about": "s3://a:b@c/d"}
    told = record()
    setattr(told, FIELDS, fields)
    line = json.loads(JsonFormatter().format(told))
    assert (line["status"], line["route"], line["about"]) == (200, "/v1", "s3://c/d")


@given(st.text(max_size=200))
def test_whatever_is_logged_is_one_line_of_json(text: str) -> None:
    line = JsonFormatter().format(record("%s", text))
    assert len(line.splitlines()) == 1 and json.loads(line)["logger"] == "strata.x"


PROGRAM = """
import logging, sys, warnings
from strata.logs import adopt_libraries, begin_log
begin_log()
library = logging.getLogger("a.library"); library.addHandler(logging.StreamHandler()); library.propagate = False
adopt_libraries()
library.warning("chatter"); logging.getLogger("httpx").info("each request"); logging.getLogger("x").debug("detail")
warnings.warn("old")
"""


@pytest.mark.parametrize(("level", "lines"), [("info", 2), ("debug", 3), ("error", 0)])
def test_libraries_and_warnings_have_the_same_form(level: str, lines: int) -> None:
    environment = {"STRATA_LOG_LEVEL": level, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    told = [json.loads(line) for line in done.stderr.splitlines()]  # stderr is no terminal
    assert len(told) == lines and all(RFC3339.fullmatch(one["time"]) for one in told)
    if lines == 2:
        assert [one["logger"] for one in told] == ["a.library", "py.warnings"]


def test_adopting_leaves_handlers_that_write_elsewhere() -> None:
    kept = logging.NullHandler()
    logger = logging.getLogger("a.library.with.its.own.file")
    logger.addHandler(kept)
    adopt_libraries()
    assert logger.handlers == [kept]
    logger.removeHandler(kept)

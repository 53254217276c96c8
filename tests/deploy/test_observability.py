"""The dashboard and the alert rules: their metrics are on the page of a running service; promtool takes the rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from strata.telemetry import FAMILIES
from tests.service import Service

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "observability"
RULES, DASHBOARD = FOLDER / "rules.yaml", FOLDER / "dashboard.json"
_ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def expressions() -> list[str]:
    """The queries of the dashboard and of the rules."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    return queries + [rule["expr"] for group in rules for rule in group["rules"]]


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bstrata_[a-z_]+", text))


def shown(service: Service) -> set[str]:
    """The names of all series that the page of a service can have, from the types that it tells."""
    page = service.client.get("/metrics").text
    kinds = re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE)
    return {name.removesuffix("_total") + ending for name, kind in kinds for ending in _ENDINGS[kind]}


def test_every_metric_of_a_query_is_on_the_page(idle_service: Service) -> None:
    queries, there = expressions(), shown(idle_service)
    assert len(queries) > 30
    for query in queries:
        assert names_in(query) <= there, query
    # and no metric is without a use
    used = {name for query in queries for name in names_in(query)}
    unused = [name for name, one in FAMILIES.items() if not {name + ending for ending in _ENDINGS[one.kind]} & used]
    assert not unused


def test_labels_in_queries_are_those_of_the_table() -> None:
    known: set[str] = {"le", "job", "instance", "pod"}.union(*(family.labels for family in FAMILIES.values()))
    for query in expressions():
        grouped = re.findall(r"\b(?:by|without|on|group_left) \(([^)]*)\)", query)
        matched = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query)
        assert {one.strip() for names in grouped for one in names.split(",")} - {""} <= known, query
        assert set(matched) <= known, query


def test_panels_do_not_overlap() -> None:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels) == len({panel["id"] for panel in panels})


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_page(idle_service: Service) -> None:
    page = idle_service.client.get("/metrics").text
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr

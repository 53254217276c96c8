"""The OpenAPI document breaks no client of the last release; each kind of change that would is noticed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.openapi.__main__ import RELEASED, current
from tests.openapi.changes import breaking_changes

Document = dict[str, Any]


@pytest.fixture(scope="module")
def now() -> Document:
    """The document of this code, as JSON has it."""
    made: Document = json.loads(json.dumps(current()))
    return made


def test_nothing_of_the_last_release_is_broken(now: Document) -> None:
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    assert breaking_changes(released, now) == [], "see docs/api.md: what clients of v1 use stays"


def _small() -> Document:
    text = {"type": "string", "maxLength": 10, "minLength": 1, "pattern": "^a"}
    node = {
        "type": "object",
        "properties": {"id": text, "child": {"anyOf": [{"$ref": "#/components/schemas/Node"}, {"type": "null"}]}},
        "required": ["id"],
    }
    body = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "kind": {"enum": ["a", "b"], "type": "string"},
            "size": {"anyOf": [{"type": "number", "maximum": 9, "minimum": 1}, {"type": "null"}]},
            "box": {"type": "array", "maxItems": 4, "items": {"type": "integer"}},
            "tags": {"type": "object", "additionalProperties": {"type": "string"}},
            "wait": {"type": "boolean", "default": True},
        },
        "required": ["kind"],
    }
    answer = {
        "type": "object",
        "properties": {
            "at": {"type": "string", "format": "date-time"},
            "count": {"type": "integer"},
            "status": {"$ref": "#/components/schemas/Status"},
            "node": {"$ref": "#/components/schemas/Node"},
            "pair": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]},
        },
        "required": ["at", "count"],
    }
    events = [
        {"properties": {"event": {"const": name}, "data": {"contentSchema": {"$ref": "#/components/schemas/Answer"}}}}
        for name in ("job", "status")
    ]
    operation = {
        "operationId": "send",
        "tags": ["things"],
        "security": [{"key": ["read", "submit"]}, {"bearer": ["read", "submit"]}],
        "parameters": [
            {"in": "query", "name": "limit", "schema": {"type": "integer", "maximum": 200, "default": 20}},
            {"in": "header", "name": "prefer", "schema": {"type": "string"}},
        ],
        "requestBody": {
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Body"}}, "text/plain": {}},
        },
        "responses": {
            "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}},
            "202": {"content": {"application/x-ndjson": {"itemSchema": {"$ref": "#/components/schemas/Node"}}}},
            "203": {"content": {"text/event-stream": {"itemSchema": {"oneOf": events}}}},
        },
    }
    status = {"type": "string", "enum": ["new", "old"]}
    schemas = {"Node": node, "Body": body, "Answer": answer, "Status": status, "Unused": {"type": "string"}}
    return {"paths": {"/things": {"post": operation}}, "components": {"schemas": schemas}}


def _operation(document: Document) -> Document:
    found: Document = document["paths"]["/things"]["post"]
    return found


def _schema(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]
    return found


def _of_body(document: Document, name: str) -> Document:
    found: Document = _schema(document, "Body")["properties"][name]
    return found


def _of_answer(document: Document, name: str) -> Document:
    found: Document = _schema(document, "Answer")["properties"][name]
    return found


BREAKING: list[tuple[str, Callable[[Document], object]]] = [
    ("POST /things: it was removed", lambda d: d["paths"].clear()),
    ("POST /things: it was removed", lambda d: d["paths"]["/things"].update(put=d["paths"]["/things"].pop("post"))),
    ("its operationId was send", lambda d: _operation(d).update(operationId="sends")),
    ("its tags was", lambda d: _operation(d).update(tags=["others"])),
    ("have it no more: submit", lambda d: _operation(d).update(security=[{"key": ["read"]}])),
    ("parameter limit: it was removed", lambda d: _operation(d)["parameters"].pop(0)),
    ("parameter prefer: it was removed", lambda d: _operation(d)["parameters"].pop(1)),
    ("parameter limit: it is required now", lambda d: _operation(d)["parameters"][0].update(required=True)),
    (
        "parameter x: it is new and required",
        lambda d: _operation(d)["parameters"].append({"in": "query", "name": "x", "required": True, "schema": {}}),
    ),
    ("maximum was 200 and is 100", lambda d: _operation(d)["parameters"][0]["schema"].update(maximum=100)),
    ("its default was 20 and is 50", lambda d: _operation(d)["parameters"][0]["schema"].update(default=50)),
    ("integer is not taken any more", lambda d: _operation(d)["parameters"][0]["schema"].update(type="string")),
    ("body: it was removed", lambda d: _operation(d).pop("requestBody")),
    ("body: it is required now", lambda d: _operation(d)["requestBody"].update(required=True)),
    ("media type text/plain was removed", lambda d: _operation(d)["requestBody"]["content"].pop("text/plain")),
    ("schema Body, box: it was removed", lambda d: _schema(d, "Body")["properties"].pop("box")),
    ("schema Body, box: it is required now", lambda d: _schema(d, "Body")["required"].append("box")),
    (
        "schema Body, more: it is required now",
        lambda d: (_schema(d, "Body")["properties"].update(more={}), _schema(d, "Body")["required"].append("more")),
    ),
    ("b may not be sent any more", lambda d: _of_body(d, "kind").update(enum=["a"])),
    ("b may not be sent any more", lambda d: (_of_body(d, "kind").pop("enum"), _of_body(d, "kind").update(const="a"))),
    ("null is not taken any more", lambda d: _of_body(d, "size")["anyOf"].pop()),
    ("number is not taken any more", lambda d: _of_body(d, "size")["anyOf"][0].update(type="integer")),
    ("maximum was 9 and is 8", lambda d: _of_body(d, "size")["anyOf"][0].update(maximum=8)),
    ("minimum was 1 and is 2", lambda d: _of_body(d, "size")["anyOf"][0].update(minimum=2)),
    ("maxItems was 4 and is 3", lambda d: _of_body(d, "box").update(maxItems=3)),
    ("each of its items: integer is not taken", lambda d: _of_body(d, "box")["items"].update(type="string")),
    ("minItems was None and is 1", lambda d: _of_body(d, "box").update(minItems=1)),
    ("only x may be sent", lambda d: _of_body(d, "tags")["additionalProperties"].update(enum=["x"])),
    ("its format was None and is uri", lambda d: _of_body(d, "tags")["additionalProperties"].update(format="uri")),
    ("pattern was None and is ^x", lambda d: _of_body(d, "tags")["additionalProperties"].update(pattern="^x")),
    ("its default was True and is False", lambda d: _of_body(d, "wait").update(default=False)),
    ("the answer 200 was removed", lambda d: _operation(d)["responses"].pop("200")),
    ("application/json was removed", lambda d: _operation(d)["responses"]["200"]["content"].clear()),
    ("schema Answer, count: it was removed", lambda d: _schema(d, "Answer")["properties"].pop("count")),
    ("schema Answer, count: it may be missing now", lambda d: _schema(d, "Answer")["required"].pop()),
    ("number may come now", lambda d: _of_answer(d, "count").update(type="number")),
    ("null may come now", lambda d: _of_answer(d, "count").update(type=["integer", "null"])),
    ("anything may come now", lambda d: _of_answer(d, "count").clear()),
    ("its format was date-time and is None", lambda d: _of_answer(d, "at").pop("format")),
    ("it had 2 places and has 1", lambda d: _of_answer(d, "pair")["prefixItems"].pop()),
    ("place 1: string may come now", lambda d: _of_answer(d, "pair")["prefixItems"][1].update(type="string")),
    ("schema Node, id: it may be missing now", lambda d: _schema(d, "Node")["required"].clear()),
    ("schema Node, child: it was removed", lambda d: _schema(d, "Node")["properties"].pop("child")),
    ("integer may come now", lambda d: _schema(d, "Status").update(type="integer", enum=[1])),
    (
        "the event status was removed",
        lambda d: _operation(d)["responses"]["203"]["content"]["text/event-stream"]["itemSchema"]["oneOf"].pop(),
    ),
    ("schema Unused: it was removed", lambda d: d["components"]["schemas"].pop("Unused")),
]


@pytest.mark.parametrize(("told", "change"), BREAKING)
def test_what_breaks_clients_is_noticed(told: str, change: Callable[[Document], object]) -> None:
    before, after = _small(), _small()
    change(after)
    found = breaking_changes(before, after)
    assert any(told in line for line in found), found


OTHER: list[Callable[[Document], object]] = [
    lambda d: d["paths"].update({"/more": {"get": {}}}),
    lambda d: _operation(d)["parameters"].append({"in": "query", "name": "x", "schema": {"type": "string"}}),
    lambda d: _operation(d)["parameters"][0]["schema"].update(maximum=1000),
    lambda d: _operation(d)["security"][0]["key"].append("admin"),
    lambda d: _operation(d)["requestBody"]["content"].update({"text/csv": {}}),
    lambda d: _operation(d)["responses"].update({"429": {}}),
    lambda d: _schema(d, "Body")["properties"].update(more={"type": "string"}),
    lambda d: _schema(d, "Body").pop("additionalProperties"),
    lambda d: _schema(d, "Body")["required"].clear(),
    lambda d: _of_body(d, "kind")["enum"].append("c"),
    lambda d: _of_body(d, "kind").pop("enum"),
    lambda d: _of_body(d, "box")["items"].update(type="number"),
    lambda d: _of_body(d, "box").update(maxItems=5),
    lambda d: _of_body(d, "size")["anyOf"].append({"type": "string"}),
    lambda d: _schema(d, "Answer")["properties"].update(more={"type": "string"}),
    lambda d: _schema(d, "Answer")["required"].append("status"),
    lambda d: _schema(d, "Status")["enum"].append("middle"),
    lambda d: _schema(d, "Node")["properties"]["id"].update(maxLength=5),
    lambda d: d["components"]["schemas"].update(More={"type": "string"}),
    lambda d: _operation(d).update(description="other words", deprecated=True),
]


@pytest.mark.parametrize("change", OTHER)
def test_what_clients_need_not_notice_is_allowed(change: Callable[[Document], object]) -> None:
    before, after = _small(), _small()
    change(after)
    assert before != after and breaking_changes(before, after) == []


def test_each_operation_parameter_and_property_of_the_document_is_guarded(now: Document) -> None:
    assert breaking_changes(now, now) == []
    operations = {f"{method.upper()} {path}": (path, method) for path, item in now["paths"].items() for method in item}
    found = breaking_changes(now, {**now, "paths": {}})
    assert {line.removesuffix(": it was removed") for line in found} == set(operations)
    # several are removed at once, as a comparison of the whole document takes some milliseconds
    for path, method in operations.values():
        names = {one["name"] for one in now["paths"][path][method].get("parameters", ())}
        found = breaking_changes(now, _without(now, "paths", path, method, "parameters")) if names else []
        assert names == {line.partition(", parameter ")[2].partition(":")[0] for line in found}
    for name, schema in now["components"]["schemas"].items():
        inner = set(schema.get("properties", {}))
        found = breaking_changes(now, _without(now, "components", "schemas", name, "properties")) if inner else []
        assert inner <= {line.partition(f"schema {name}, ")[2].partition(":")[0] for line in found}, name


def _without(document: Document, *place: str) -> Document:
    """A copy without what lies at a place; only what lies above it is copied."""
    copied = result = copy.copy(document)
    for step in place[:-1]:
        copied[step] = copied = copy.copy(copied[step])
    del copied[place[-1]]
    return result

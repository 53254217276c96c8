"""What of an OpenAPI document would break clients of an earlier one: code that calls it, and code that was generated.

What clients send must still be taken, so schemas of requests may only become wider; what they get must still be
understood, so schemas of answers may only become narrower, or get further properties. `docs/api.md` promises it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]
Alternative = tuple[str, Schema]  # its name, empty if it has none

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
# of requests: a lower one of these, or a higher one of those, refuses what was taken
_MOST = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
_LEAST = ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties")
_EVENTS = "text/event-stream"


def breaking_changes(before: Schema, after: Schema) -> list[str]:
    """A line for each change that breaks clients of `before`, as `GET /v1/jobs, parameter limit: it was removed`."""
    return list(dict.fromkeys(_Comparison(before, after).changes()))


@dataclass
class _Comparison:
    """Two documents. known: the changes of pairs of named schemas, which may contain themselves."""

    before: Schema
    after: Schema
    known: dict[tuple[str, str, bool], list[str]] = field(default_factory=dict)

    def changes(self) -> Iterator[str]:
        """The lines of `breaking_changes`, some of them several times."""
        for path, item in self.before["paths"].items():
            for method in filter(item.__contains__, _METHODS):
                where = f"{method.upper()} {path}"
                now = self.after["paths"].get(path, {}).get(method)
                if now is None:
                    yield f"{where}: it was removed"
                else:
                    yield from self._operation(where, item[method], now)
        schemas = self.after.get("components", {}).get("schemas", {})
        for name in self.before.get("components", {}).get("schemas", {}):
            if name not in schemas:
                yield f"schema {name}: it was removed, and generated clients have it as a class"

    def _operation(self, where: str, before: Schema, after: Schema) -> Iterator[str]:
        for name in ("operationId", "tags"):
            if before.get(name) != after.get(name):
                yield f"{where}: its {name} was {before.get(name)} and is {after.get(name)}"
        lost = _scopes(before) - _scopes(after)
        if lost or (not _scopes(before) and _scopes(after)):
            yield f"{where}: keys that had access have it no more: {', '.join(sorted(lost)) or 'without a key'}"
        yield from self._parameters(where, before, after)
        yield from self._body(f"{where}, body", before.get("requestBody"), after.get("requestBody"))
        for status, answer in before.get("responses", {}).items():
            now = after.get("responses", {}).get(status)
            if now is None:
                yield f"{where}: the answer {status} was removed"
            else:
                yield from self._content(f"{where}, answer {status}", answer, now, sent=False)

    def _parameters(self, where: str, before: Schema, after: Schema) -> Iterator[str]:
        old, new = ({(one["in"], one["name"]): one for one in side.get("parameters", ())} for side in (before, after))
        for (place, name), parameter in old.items():
            now = new.get((place, name))
            if now is None:
                yield f"{where}, parameter {name}: it was removed"
                continue
            if now.get("required", False) and not parameter.get("required", False):
                yield f"{where}, parameter {name}: it is required now"
            yield from self._schemas(f"{where}, parameter {name}", parameter["schema"], now["schema"], sent=True)
        for place, name in new.keys() - old.keys():
            if new[place, name].get("required", False):
                yield f"{where}, parameter {name}: it is new and required"

    def _body(self, where: str, before: Schema | None, after: Schema | None) -> Iterator[str]:
        required = after is not None and after.get("required", False)
        if before is None or after is None:
            if before is not None:
                yield f"{where}: it was removed"
            elif required:
                yield f"{where}: it is new and required"
            return
        if required and not before.get("required", False):
            yield f"{where}: it is required now"
        yield from self._content(where, before, after, sent=True)

    def _content(self, where: str, before: Schema, after: Schema, sent: bool) -> Iterator[str]:
        """What a body may be, by its media type."""
        for kind, content in before.get("content", {}).items():
            now = after.get("content", {}).get(kind)
            if now is None:
                yield f"{where}: the media type {kind} was removed"
            elif kind == _EVENTS:
                yield from self._events(where, content, now)
            else:
                for name in ("schema", "itemSchema"):
                    if name in content:
                        yield from self._schemas(where, content[name], now.get(name, {}), sent)

    def _events(self, where: str, before: Schema, after: Schema) -> Iterator[str]:
        old, new = (_events_of(side) for side in (before, after))
        for name, data in old.items():
            if name not in new:
                yield f"{where}: the event {name} was removed"
            else:
                yield from self._schemas(f"{where}, event {name}", data, new[name], sent=False)

    def _schemas(self, where: str, before: Schema, after: Schema, sent: bool) -> Iterator[str]:
        """Compare two schemas. sent: of requests."""
        if sent and "default" in before and before["default"] != after.get("default"):
            yield f"{where}: its default was {before['default']!r} and is {after.get('default')!r}"
        old, new = list(_alternatives(self.before, before)), list(_alternatives(self.after, after))
        # each of those that clients may send must be taken, and each of those that they may get must be known
        for one in old if sent else new:
            pairs = [(one, other) for other in new] if sent else [(other, one) for other in old]
            tries = [self._alike(where, *pair, sent=sent) for pair in pairs if _is_as(pair[0][1], pair[1][1], sent)]
            if not tries:
                yield f"{where}: {_kind(one[1]) or 'anything'} {'is not taken any more' if sent else 'may come now'}"
            # of several objects the one that is meant is the one that fits best
            yield from min(tries, key=len, default=[])

    def _alike(self, where: str, before: Alternative, after: Alternative, sent: bool) -> list[str]:
        """The changes between two schemas of one type."""
        pair = before[0], after[0], sent
        if not (before[0] and after[0]):
            return list(self._inner(where, before[1], after[1], sent))
        if pair not in self.known:
            self.known[pair] = []  # for the schemas in it that contain it
            # told by its name, wherever it is used
            self.known[pair] = list(self._inner(f"schema {before[0]}", before[1], after[1], sent))
        return self.known[pair]

    def _inner(self, where: str, before: Schema, after: Schema, sent: bool) -> Iterator[str]:
        yield from _values(where, before, after, sent)
        for name in ("items", "additionalProperties"):
            if isinstance(before.get(name), Mapping) and isinstance(after.get(name), Mapping):
                yield from self._schemas(f"{where}, each of its {name}", before[name], after[name], sent)
        old, new = before.get("prefixItems", []), after.get("prefixItems", [])
        if len(old) != len(new):
            yield f"{where}: it had {len(old)} places and has {len(new)}"
        for number, (one, other) in enumerate(zip(old, new, strict=False)):
            yield from self._schemas(f"{where}, place {number}", one, other, sent)
        yield from self._properties(where, before, after, sent)

    def _properties(self, where: str, before: Schema, after: Schema, sent: bool) -> Iterator[str]:
        old, new = before.get("properties", {}), after.get("properties", {})
        if sent and after.get("additionalProperties") is False and before.get("additionalProperties") is not False:
            yield f"{where}: other properties than its own are refused now"
        for name, schema in old.items():
            if name not in new:
                yield f"{where}, {name}: it was removed"
            else:
                yield from self._schemas(f"{where}, {name}", schema, new[name], sent)
        required, now = set(before.get("required", ())), set(after.get("required", ()))
        for name in sorted(now - required if sent else required - now):
            # what was removed is told already
            if name in new:
                yield f"{where}, {name}: {'it is required now' if sent else 'it may be missing now'}"


def _alternatives(document: Schema, schema: Schema, name: str = "") -> Iterator[Alternative]:
    """The schemas of which one must hold, each with its name in the document, if it has one."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        yield from _alternatives(document, document["components"]["schemas"][name], name)
    elif "anyOf" in schema or "oneOf" in schema:
        for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from _alternatives(document, one)
    elif isinstance(schema.get("type"), list):
        for kind in schema["type"]:
            yield "", {**schema, "type": kind}
    else:
        yield name, schema


def _is_as(before: Schema, after: Schema, sent: bool) -> bool:
    """Whether two schemas are of one type; a whole number is a number."""
    old, new = _kind(before), _kind(after)
    wide, narrow = (new, old) if sent else (old, new)
    return old == new or not wide or (wide, narrow) == ("number", "integer")


def _kind(schema: Schema) -> str:
    """The type of a schema without alternatives; empty if it may be any."""
    if "type" in schema:
        return str(schema["type"])
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    kinds = {bool: "boolean", str: "string", int: "integer", float: "number", type(None): "null"}
    found = {kinds.get(type(value), "") for value in values}
    return found.pop() if len(found) == 1 else ""


def _values(where: str, before: Schema, after: Schema, sent: bool) -> Iterator[str]:
    """What the values of one type may be. An answer may get further values of an enumeration, see docs/api.md."""
    # a format is a promise of an answer, and a condition for what is sent
    if before.get("format") != after.get("format") and (after if sent else before).get("format"):
        yield f"{where}: its format was {before.get('format')} and is {after.get('format')}"
    if not sent:
        return
    old, new = _enumeration(before), _enumeration(after)
    if new is not None and old is None:
        yield f"{where}: only {', '.join(map(str, new))} may be sent now"
    elif new is not None and old is not None and (lost := [one for one in old if one not in new]):
        yield f"{where}: {', '.join(map(str, lost))} may not be sent any more"
    for name in ("pattern", *_MOST, *_LEAST):
        if name in after and before.get(name) != after[name] and not _is_wider(name, before.get(name), after[name]):
            yield f"{where}: {name} was {before.get(name)} and is {after[name]}"


def _enumeration(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _is_wider(name: str, before: Any, after: Any) -> bool:
    if before is None or name == "pattern":
        return False
    return bool(after > before if name in _MOST else after < before)


def _scopes(operation: Schema) -> set[str]:
    """The scopes of a key of which one is needed."""
    return {scope for way in operation.get("security", ()) for scopes in way.values() for scope in scopes}


def _events_of(content: Schema) -> dict[str, Schema]:
    """The schemas of the data of events, by their names."""
    kinds = content.get("itemSchema", {}).get("oneOf", ())
    return {kind["properties"]["event"]["const"]: kind["properties"]["data"]["contentSchema"] for kind in kinds}

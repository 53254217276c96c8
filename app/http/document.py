"""The OpenAPI document, so that generators make whole clients of it: every body is a schema with a name.

FastAPI names what it parses and answers itself. The rest is added here: problems, the lines of JSON Lines, the events
of a job, and the two bodies of `POST /v1/captions`.
"""

from __future__ import annotations

from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from strata.core import LAYERS, VARIANTS, CaptionBody, FailureRow, JobView, Problem, Record

Schema = dict[str, Any]

_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (Problem, Record, FailureRow, JobView)
BYTES: Schema = {"schema": {"type": "string", "format": "binary"}}  # the content of an answer that is no text
# what an event `progress` has of a job
PROGRESS = ("id", "status", "request_counts", "shards", "groups", "images_per_second", "eta_seconds", "waiting")
_FORM: Schema = {
    "type": "object",
    "title": "CaptionForm",
    "description": "`POST /v1/captions` as a form.",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "contentMediaType": "application/octet-stream",
            "description": "the image",
        },
        "alt_text": {"type": "string", "maxLength": 4096},
        "profile": {"type": "string"},
        "variants": {"type": "string", "description": f"with commas between them: {', '.join(VARIANTS)}"},
        "language": {"type": "string", "pattern": "^[a-z]{2}$"},
        "prompt": {"type": "string", "maxLength": 4000},
    },
}


def named(schema: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": _REF.format(model=schema)}


def lines_of(schema: str) -> dict[int | str, Schema]:
    """The documented answer of JSON Lines, each of which has this schema (`itemSchema` is that of OpenAPI 3.2)."""
    content = {"schema": {"type": "string"}, "itemSchema": named(schema)}
    return {200: {"content": {"application/x-ndjson": content}, "description": f"One `{schema}` a line, as JSON"}}


def events_of(**schemas: str) -> dict[int | str, Schema]:
    """The documented answer of server-sent events: by the name of each, the schema of its data."""
    kinds = [
        {
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": {"const": event},
                "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": named(schema)},
            },
        }
        for event, schema in schemas.items()
    ]
    return {200: {"content": {"text/event-stream": {"itemSchema": {"oneOf": kinds}}}, "description": "Events"}}


def operation_id(route: APIRoute) -> str:
    """The name of an operation: that of its function, which generators make the name of a method."""
    return route.name


def complete(document: Schema) -> Schema:
    """Add the named schemas that FastAPI does not know."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, answers = models_json_schema([(model, "serialization") for model in _MODELS], ref_template=_REF)
    _, bodies = models_json_schema([(CaptionBody, "validation")], ref_template=_REF)
    for name, schema in (answers["$defs"] | bodies["$defs"] | {"CaptionForm": _FORM}).items():
        schemas.setdefault(name, schema)
    layers = {layer.name: schemas["Record"]["properties"][layer.name] for layer in LAYERS.values()}
    image = {name: schemas["Record"]["properties"][name] for name in ("key", "width", "height")}
    schemas["JobProgress"] = _part(schemas["JobView"], "JobProgress", "The data of an event `progress`.")
    schemas["LayersSoFar"] = {
        "type": "object",
        "title": "LayersSoFar",
        "description": "The data of an event `layer`: the image, and those of its layers that have changed.",
        "required": ["image", "layers"],
        "properties": {
            "image": {"type": "object", "title": "ImageSoFar", "required": ["key"], "properties": image},
            "layers": {"type": "object", "title": "ChangedLayers", "properties": layers},
        },
    }
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _part(schema: Schema, title: str, description: str) -> Schema:
    """A schema with the properties of PROGRESS alone."""
    properties = {name: schema["properties"][name] for name in PROGRESS}
    required = [name for name in schema.get("required", ()) if name in PROGRESS]
    return {
        "type": "object",
        "title": title,
        "description": description,
        "properties": properties,
        "required": required,
    }

"""Hook of mkdocs: the reference pages that are made from the code at each build, so that they cannot fall behind it.

`reference/command-line.md` is the help of typer, `settings.md` comes from the fields of `Settings`, `profile.md` from
the registry of back ends, `http-api.md` from the OpenAPI document of the app, `record.md` from the JSON schema of
`Record`, and `python.md` names the public modules for mkdocstrings, which reads their source without importing it.
"""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

CHECKOUT = Path(__file__).resolve().parent.parent
CLI = "strata.cli.main"
PUBLIC = (
    "strata.client",
    "strata.data",
    "strata.evaluation",
    "strata.snapshots",
    "strata.core",
    "strata.core.schemas",
    "strata.core.profiles",
    "strata.store",
    "strata.shards",
)
Schema = dict[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those in the folder."""
    sys.path.insert(0, str(CHECKOUT))  # `app` is found in a checkout only
    pages = {
        "command-line": command_line,
        "settings": settings,
        "profile": profile,
        "http-api": http_api,
        "record": record,
        "python": python_api,
    }
    for name, make in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    return files


def command_line() -> str:
    """Every command with its arguments and options, as `strata COMMAND --help` tells them, and the exit codes."""
    from strata.cli import exits

    command = [sys.executable, "-m", "typer", CLI, "utils", "docs", "--name", "strata", "--title", "Command line"]
    made = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True)
    return f"{made.stdout}\n## Exit codes\n\n{(exits.__doc__ or '').partition(chr(10))[2]}"


def settings() -> str:
    """A table of the environment variables."""
    from strata.core.settings import Settings

    lines = ["# Settings", "", "Environment variables. `strata serve --help` shows which have a flag of their own.", ""]
    lines += ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = alias.choices[0] if isinstance(alias, AliasChoices) else f"STRATA_{name.upper()}"
        lines.append(
            _row(f"`{variable}`", f"`{_type_name(field.annotation)}`", _default(field), field.description or "")
        )
    lines += ["", "Not in `Settings`; read by the command line, the models and the libraries:", ""]
    lines += ["| variable | meaning |", "|---|---|"]
    lines += [_row(f"`{name}`", text) for name, text in _OTHER_VARIABLES.items()]
    return "\n".join(lines) + "\n"


_OTHER_VARIABLES = {
    "STRATA_MODELS": "folder of the fetched weights; `~/.cache/strata/models` if not set",
    "STRATA_DEBUG": "`1`: the command line shows the traceback of an error, as with `strata --debug`",
    "STRATA_URL": "address of the service for the command line; `http://127.0.0.1:8080` if not set",
    "HF_ENDPOINT": "a mirror of the model hub, for `strata models fetch`",
    "HF_TOKEN": "token for gated or private repositories of the hub",
    "OPENAI_API_KEY": "key of a chat server, unless the profile's `api_key_variable` names another variable",
    "AWS_*, GOOGLE_APPLICATION_CREDENTIALS": "credentials of buckets, see [Deploy](../how-to/deploy.md#buckets)",
}


def profile() -> str:
    """The tables of a profile file, and the parameters of each back end in the registry."""
    from strata.core import profiles, rules
    from strata.core.parameters import BUILT_IN

    lines = ["# Profile", "", "What may stand in a profile's TOML file.", ""]
    tables: dict[str, type[BaseModel]] = {
        "The file": profiles.Profile,
        "`[stages.NAME]`": profiles.StageSettings,
        "`[evidence]`": profiles.EvidenceSettings,
        "`[evidence.weights]`": profiles.NameWeights,
        "`[rules]`": rules.Rules,
    }
    for title, model in tables.items():
        lines += [f"## {title}", "", *_model_fields(model)]
    for back_end in BUILT_IN:
        kinds = ", ".join(f"`{kind}:`" for kind in back_end.models)
        lines += [f"## {back_end.stage}: `{back_end.name}`", "", f"`model` begins with {kinds}.", ""]
        lines += _model_fields(back_end.parameters)
    return "\n".join(lines) + "\n"


def _model_fields(model: type[BaseModel]) -> Iterator[str]:
    """A pydantic class: its docstring, those of its bases that have fields, and a table of all fields."""
    from strata.core import profiles

    for told in model.__mro__:
        if told is model or (
            issubclass(told, BaseModel) and told is not BaseModel and vars(told).get("__annotations__")
        ):
            yield from (_paragraphs(told.__doc__ or ""), "")
    if model.model_fields:
        yield from ("| key | type | default |", "|---|---|---|")
    for name, field in model.model_fields.items():
        if (model, name) not in ((profiles.Profile, "name"), (profiles.Profile, "prompts")):  # not from the file
            yield _row(f"`{name}`", f"`{_type_name(field.annotation)}`", _default(field))
    yield ""


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type):
        return annotation.__name__
    return re.sub(r"[a-z_.]+\.(?=[A-Z])", "", str(annotation))  # without the modules of the classes in it


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if value == [str(Path.cwd())]:
        return "the current folder"
    if isinstance(value, Path) and value.is_relative_to(CHECKOUT):
        value = value.relative_to(CHECKOUT)
    if isinstance(value, BaseModel) or value in ("", {}, []):
        return "empty"
    return f"`{value}`"


def http_api() -> str:
    """Every operation of the OpenAPI document: what it takes and what it answers."""
    from app.main import create_app
    from strata.core.settings import Settings
    from strata.queue.queue import Queue
    from strata.store.store import Store

    configured = Settings()
    # the document needs no Redis: a queue connects with its first command
    document = create_app(configured, Queue("redis://127.0.0.1:1"), Store(configured.store_uri)).openapi()
    lines = [
        "# HTTP API",
        "",
        "The service shows this document at `/docs` and `/redoc`, and as JSON at `/openapi.json`.",
        "",
    ]
    lines += ["Every error is a [problem](../problems.md) (RFC 9457).", ""]
    schemas = document["components"]["schemas"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            lines += _operation(f"{method.upper()} {path}", operation, schemas)
    return "\n".join(lines) + "\n"


def _operation(title: str, operation: Schema, schemas: Schema) -> Iterator[str]:
    yield from (f"## `{title}`", "", str(operation.get("description", operation["summary"])), "")
    scopes = sorted({scope for way in operation.get("security", ()) for names in way.values() for scope in names})
    if scopes:
        yield from (f"It needs a key with the scope {' or '.join(f'`{scope}`' for scope in scopes)}.", "")
    parameters = operation.get("parameters", [])
    if parameters:
        yield from ("| parameter | in | type | required | meaning |", "|---|---|---|---|---|")
    for parameter in parameters:
        required = "yes" if parameter.get("required") else "no"
        schema = parameter["schema"]
        text = parameter.get("description") or schema.get("description", "")
        yield _row(f"`{parameter['name']}`", parameter["in"], f"`{_schema_type(schema)}`", required, text)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        body = content.get("schema", {})
        body = schemas.get(_schema_type(body), body)  # a reference to a named schema, or the schema itself
        yield from ("", f"Body, `{kind}`:", "", *_fields(body, schemas, ""))
    yield from ("", "| status | answer | content |", "|---|---|---|")
    for status, response in operation["responses"].items():
        contents = ", ".join(f"`{kind}`" for kind in response.get("content", {}))
        yield _row(status, response["description"], contents)
    yield ""


def _fields(schema: Schema, schemas: Schema, prefix: str) -> Iterator[str]:
    """A table of an object's fields; those of an object within it follow as `outer.inner` where `schemas` has it."""
    if not prefix and "properties" in schema:
        yield from ("| field | type | default | meaning |", "|---|---|---|---|")
    required = schema.get("required", [])
    for name, of in schema.get("properties", {}).items():
        default = f"`{of['default']}`" if "default" in of else "required" if name in required else ""
        kind = _schema_type(of).replace("None", "null")
        yield _row(f"`{prefix}{name}`", f"`{kind}`", default.replace("None", "null"), of.get("description", ""))
        yield from _fields(schemas.get(kind, {}), schemas, f"{prefix}{name}.")


def record() -> str:
    """The record and everything within it, one table an object."""
    from strata.core.records import Record

    schema = Record.model_json_schema(mode="serialization")
    lines = ["# Record", "", "One image as `GET /v1/records`, `strata results` and a part's row give it.", ""]
    for name, definition in {"Record": schema, **schema["$defs"]}.items():
        lines += [f"## {name}", "", _paragraphs(definition.get("description", "")), ""]
        if "enum" in definition:
            lines += ["One of " + ", ".join(f"`{value}`" for value in definition["enum"]) + ".", ""]
        lines += [*_fields(definition, {}, ""), ""]
    return "\n".join(lines) + "\n"


def _schema_type(schema: Schema) -> str:
    """A JSON schema's type in a few words, `list[Region] or null`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_schema_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        items = schema.get("prefixItems")
        inner = ", ".join(map(_schema_type, items)) if items else _schema_type(schema.get("items", {}))
        return f"list[{inner}]"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_schema_type(schema['additionalProperties'])}"
    return str(schema.get("type", schema.get("const", "any")))


def python_api() -> str:
    """The public modules, each by mkdocstrings."""
    lines = ["# Python", "", "The public modules of the library, package by package.", ""]
    for package in PUBLIC:
        room = import_module(package)
        lines += [f"## {package}", "", _paragraphs(room.__doc__ or ""), ""]
        names = sorted(info.name for info in pkgutil.iter_modules(room.__path__) if not info.ispkg)
        lines += [line for name in names for line in (f"::: {package}.{name}", "")]
    return "\n".join(lines) + "\n"


def _paragraphs(docstring: str) -> str:
    return "\n".join(line.strip() for line in docstring.strip().splitlines())


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

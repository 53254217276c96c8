"""types.js has the fields of the API's models, and no others."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import BaseModel

from app.routes.studio import session
from app.routes.studio.pages import layer_table
from strata.core import claims, layers, records, schemas
from strata.core.parameters import texts
from strata.core.parameters.texts import VARIANTS
from strata.profiles import views
from tests.checkout import CHECKOUT

TYPES = CHECKOUT / "app" / "static" / "studio" / "types.js"
MODULES = (claims, layers, records, schemas, session, texts, views)
PARTLY = {"ProfileView"}  # of which the studio does not use all fields


def _typedefs() -> dict[str, str]:
    """The declared types by name."""
    text = re.sub(r"\n \*", "\n", TYPES.read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for match in re.finditer(r"@typedef \{", text):
        depth, at = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        name = re.match(r"\s*(\w+)", text[at:])
        assert name
        found[name[1]] = text[match.end() : at - 1]
    return found


TYPEDEFS = _typedefs()


def _fields(declared: str) -> set[str]:
    """The names of the fields of a type: of its braces, and of the types that it adds with &."""
    names = {name for base in re.findall(r"(\w+) &", declared) for name in _fields(TYPEDEFS[base])}
    depth = 0
    for piece in re.findall(r"[{}]|(?<=[{,\s])\w+(?=:)", declared):
        depth += {"{": 1, "}": -1}.get(piece, 0)
        if depth == 1 and piece not in "{}":
            names.add(piece)
    return names


def _model(name: str) -> type[BaseModel] | None:
    return next((getattr(module, name) for module in MODULES if hasattr(module, name)), None)


@pytest.mark.parametrize("name", [name for name in TYPEDEFS if isinstance(_model(name), type)])
def test_a_type_has_the_fields_of_its_model(name: str) -> None:
    model = _model(name)
    assert model is not None
    fields = _fields(TYPEDEFS[name])
    if name in PARTLY:
        assert fields < set(model.model_fields)
    else:
        assert fields == set(model.model_fields)


def test_the_table_of_layers_is_declared() -> None:
    assert all(set(one) == _fields(TYPEDEFS["Layer"]) for one in layer_table())


def test_all_types_of_answers_are_declared() -> None:
    assert {"Record", "JobView", "JobPage", "FailureRow", "Problem", "BatchPreview", "Variant"} <= set(TYPEDEFS)


def test_all_variants_are_offered() -> None:
    script = (TYPES.parent / "texts.js").read_text(encoding="utf-8")
    declared = re.search(r"VARIANTS = (\[.*\]);", script)
    assert declared and json.loads(declared[1]) == list(VARIANTS)

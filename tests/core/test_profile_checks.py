"""Profiles with faults: each is refused with a line that names the key and what was probably meant."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from strata.core.parameters import BUILT_IN, Parameters
from strata.core.profiles import GROUPS, InvalidProfile, ProfileError, load_profile, read_profile
from strata.core.registry import STAGES, installed
from tests.checkout import CHECKOUT

PROFILES = CHECKOUT / "models" / "profiles"
DEMO = (PROFILES / "demo.toml").read_text()
SHIPPED = ("demo", "paper", "modern")
# names that a typo of another name could be
MAKERS = [spec.name for spec in STAGES if spec.makes_layer]
_SIBLINGS = {name for back_end in BUILT_IN for name in back_end.parameters.model_fields}
# demo: since names are weighed (docs/decisions.md, 2026-11-29)
# paper: of versions 2 of BLIP-2's back ends, and of Monkey's duplicate rule; modern: with its second opinion
FINGERPRINTS = {
    "demo": ("dd783b45766b413c", "0402147bd705dd53", "47a9ea6576f1d636"),
    "paper": ("dd783b45766b413c", "0003f3deb3310bc8", "37792423916af984"),
    "modern": ("dd783b45766b413c", "85c13549487d0f1f", "4e192666f4267816"),
}


OF_CLIP = '\n[stages.aesthetic]\nbackend = "laion"\nmodel = "local:/clip"\nrevision = ""\n'


def without(stage: str) -> str:
    """The profile `demo` without a stage's tables."""
    return re.sub(rf"(?m)^\[stages\.{stage}(\.parameters)?\]\n(?:(?!\[).*\n?)*", "", DEMO)


def changed(*pairs: tuple[str, str]) -> str:
    """The profile `demo` with other text in some places."""
    text: str = DEMO
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


BROKEN: dict[str, tuple[str, list[str]]] = {
    "unknown stage": (
        changed(("[stages.ocr]", "[stages.orc]"), ("[stages.ocr.parameters]", "[stages.orc.parameters]")),
        ["stages.orc: unknown stage; did you mean 'ocr'?"],
    ),
    "unknown stage without its settings": (
        DEMO + "\n[stages.dtector]\n",
        ["stages.dtector: unknown stage; did you mean 'detector'?"],
    ),
    "unknown back end": (
        changed(('"rapidocr"', '"rapid_ocr"')),
        ["stages.ocr.backend: ocr has no back end 'rapid_ocr'; did you mean 'rapidocr'?"],
    ),
    "unknown parameter": (
        changed(("line_width", "line_widht")),
        ["stages.ocr.parameters.line_widht: unknown key; did you mean 'line_width'?"],
    ),
    "parameter of another type": (
        changed(("line_width = 160", 'line_width = "160"')),
        ["stages.ocr.parameters.line_width: should be a valid integer"],
    ),
    "truth value for a number": (
        changed(("max_notes = 12", "max_notes = true")),
        ["stages.composer.parameters.max_notes: should be a valid integer"],
    ),
    "parameter out of range": (
        changed(("nms_iou = 0.6", "nms_iou = 1.6")),
        ["stages.detector.parameters.nms_iou: should be less than or equal to 1"],
    ),
    "parameter that is not a number": (
        changed(("nms_iou = 0.6", "nms_iou = nan")),
        ["stages.detector.parameters.nms_iou: should be a finite number"],
    ),
    "choice that is none": (
        changed(('"int8"', '"int4"')),
        ["stages.composer.parameters.precision: should be 'int8', 'float32' or 'bfloat16'"],
    ),
    "parameter in the stage's table": (
        changed(("[stages.ocr.parameters]\n", "")),
        [
            "stages.ocr.line_width: belongs in [stages.ocr.parameters]",
        ],
    ),
    "unknown evidence key": (
        changed(("\nregion_score", "\nregion_scores")),
        ["evidence.region_scores: unknown key; did you mean 'region_score'?"],
    ),
    "evidence out of range": (
        changed(("object = 0.0", "object = 96")),
        ["evidence.object: should be less than or equal to 1"],
    ),
    "unknown top-level key": (
        changed(("chunk_size", "chunksize")),
        ["chunksize: unknown key; did you mean 'chunk_size'?"],
    ),
    "a name in the file": ('name = "x"\n' + DEMO, ["name: is not set in a profile's file"]),
    "no stage that makes a layer": (
        '[stages.composer]\nbackend = "transformers"\nmodel = "local:/m"\nrevision = ""\n'
        + "[stages.composer.parameters]\n"
        + DEMO.partition("[stages.composer.parameters]\n")[2],
        [f"stages: at least one stage must make a layer: {', '.join(MAKERS)}"],
    ),
    "no stages at all": ("chunk_size = 5\n", ["stages: is required"]),
    "segmenter without captioner": (
        without("captioner").replace("caption = 0.05\ncaption_claims = true\n", ""),
        ["stages.segmenter: needs the stage 'captioner', which is missing"],
    ),
    "a score of embeddings of another model": (
        DEMO + OF_CLIP,
        [
            "stages.aesthetic.model: should be that of the stage 'embedding', which it reads",
            "stages.aesthetic.revision: should be that of the stage 'embedding', which it reads",
        ],
    ),
    "a score without embeddings": (
        without("embedding") + OF_CLIP,
        ["stages.aesthetic: needs the stage 'embedding', which is missing"],
    ),
    "matcher without anything to match": (
        '[stages.ocr]\nbackend = "rapidocr"\nmodel = "builtin:rapidocr"\nrevision = ""\n'
        '[stages.matcher]\nbackend = "open_clip"\nmodel = "bundled:matcher"\nrevision = ""\n',
        ["stages.matcher: needs one of the stages captioner, detector"],
    ),
    "thresholds without matcher": (
        without("matcher"),
        [
            "evidence.caption: has no effect without the stage 'matcher': remove it",
            "evidence.weight: has no effect without the stage 'matcher': remove it",
            "evidence.weights: has no effect without the stage 'matcher': remove it",
        ],
    ),
    "prompt that is not there": (
        changed(('prompt = "small"', 'prompt = "smal"')),
        ["stages.composer.parameters.prompt: no prompt 'smal'; did you mean 'small'?"],
    ),
    "prompt outside its folder": (
        changed(('prompt = "small"', 'prompt = "../profiles/demo"')),
        ["stages.composer.parameters.prompt: no prompt '../profiles/demo'; there are: full, sighted, small"],
    ),
    "prompt with another hash": (
        changed(("6f2e45ce", "00000000")),
        [
            "stages.composer.parameters.prompt_sha256: the prompt 'small' has the sha256 "
            "6f2e45ce4786574666b421afe8c0d9cf228e584450357f427ac748deb2776194"
        ],
    ),
    "prompt without wording": (
        changed(
            ('prompt = "small"', 'prompt = "full"'),
            (
                "6f2e45ce4786574666b421afe8c0d9cf228e584450357f427ac748deb2776194",
                "84ef53105efaa299e2acf6fab89cb143b2b4ee1972ddc3ca9be377afc5c224a7",
            ),
        ),
        ["stages.composer.parameters.prompt: the prompt 'full' has no table [wording], which grounded decoding needs"],
    ),
    "broken TOML": (
        changed(("chunk_size = 16", "chunk_size 16")),
        ["cannot be read: Expected '=' after a key in a key/value pair (at line 4, column 12)"],
    ),
    "a second opinion that nobody asks for": (
        changed(
            (
                "[stages.composer]",
                '[stages.second_matcher]\nbackend = "open_clip"\nmodel = "bundled:matcher"\n[stages.composer]',
            )
        ),
        [
            "stages.second_matcher.revision: is required",
            "stages.second_matcher: has no effect without evidence.second_region or evidence.second_object",
        ],
    ),
    "a verifier that asks a stage that is missing": (
        changed(
            (
                'caption = "setting"',
                'caption = "setting"\nsecond_opinion = "second_matcher"\nmatch = 0.5',
            )
        ),
        ["stages.verifier.parameters.second_opinion: needs the stage 'second_matcher', which is missing"],
    ),
    "a verifier that asks without a threshold": (
        changed(('caption = "setting"', 'caption = "setting"\nsecond_opinion = "matcher"')),
        ["stages.verifier.parameters: second_opinion and match have no effect without each other"],
    ),
    "a threshold without a second matcher": (
        changed(("object = 0.0", "object = 0.0\nsecond_object = 0.5")),
        ["evidence.second_object: has no effect without the stage 'second_matcher': remove it"],
    ),
    "model without its kind": (
        changed(('"bundled:captioner"', '"captioner"')),
        [
            "stages.captioner.model: back end 'florence2' accepts bundled:NAME or local:/PATH or hub:OWNER/NAME or "
            "pypi:PACKAGE==VERSION"
        ],
    ),
    "model with a misspelt kind": (
        changed(('"bundled:captioner"', '"bundle:captioner"')),
        [
            "stages.captioner.model: back end 'florence2' accepts bundled:NAME or local:/PATH or hub:OWNER/NAME or "
            "pypi:PACKAGE==VERSION; did you mean 'bundled:'?"
        ],
    ),
    "model of a kind that the back end does not take": (
        changed(('"builtin:classical"', '"hub:facebook/sam-vit-huge"')),
        ["stages.segmenter.model: back end 'classical' accepts builtin:NAME"],
    ),
    "hub model without an owner": (
        changed(('"bundled:captioner"', '"hub:captioner"'), ('revision = "e3b32263ac020a42cc97', 'revision = "')),
        [
            "stages.captioner.model: should be hub:OWNER/NAME",
            "stages.captioner.revision: should be a commit (40 hex digits): hub models must be pinned; "
            "`strata models fetch` prints today's revision",
        ],
    ),
    "hub model that is not pinned": (
        (PROFILES / "paper.toml").read_text().replace("59a1ef6c1e5117b3f65523d1c6066825bcf315e3", "main"),
        [
            "stages.captioner.revision: should be a commit (40 hex digits): hub models must be pinned; "
            "`strata models fetch` prints today's revision"
        ],
    ),
    "required keys that are missing": (
        changed(('backend = "classical"\n', ""), ('model = "bundled:matcher"\n', "")),
        ["stages.segmenter.backend: is required", "stages.matcher.model: is required"],
    ),
    "a field of a request that the stage sets": (
        (PROFILES / "paper.toml")
        .read_text()
        .replace("\n[stages.verifier]", "request = {max_tokens = 5}\n\n[stages.verifier]"),
        [
            "stages.composer.parameters.request: max_tokens cannot be set: the cost limit of a request depends on it",
        ],
    ),
    "several faults": (
        changed(("chunk_size = 16", "chunk_size = 0"), ("line_width", "line_widht"), ('"open_clip"', '"openclip"')),
        [
            "chunk_size: should be greater than or equal to 1",
            "stages.ocr.parameters.line_widht: unknown key; did you mean 'line_width'?",
            "stages.matcher.backend: matcher has no back end 'openclip'; did you mean 'open_clip'?",
        ],
    ),
    "a table that is none": (
        changed(("[stages.ocr.parameters]\nline_width", "parameters = 5\n#")),
        ["stages.ocr.parameters: should be a table"],
    ),
    "a key with control characters": (
        '"a\\u001bb\\nc" = 1\n' + DEMO,
        [
            '"a\\u001bb\\nc": unknown key; there are: chunk_size, description, domain, evidence, leave_out, '
            "micro_batch, needs, rules, stages, texts, warnings"
        ],
    ),
}


def refused(text: str | bytes, folder: Path) -> InvalidProfile:
    path = folder / "profiles" / "mine.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidProfile) as caught:
        read_profile(path)
    return caught.value


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_profile_gets_its_lines(name: str, tmp_path: Path) -> None:
    text, lines = BROKEN[name]
    error = refused(text, tmp_path)
    print(*error.lines, sep="\n")
    assert error.lines == [f"{tmp_path}/profiles/mine.toml: {line}" for line in lines]
    assert str(error) == "; ".join(f"mine.toml: {line}" for line in lines)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a = " + b"[" * 5000, b"a = " + b"9" * 5000, b'a = "'])
def test_a_file_that_is_no_toml_is_one_fault(data: bytes, tmp_path: Path) -> None:
    (line,) = refused(data, tmp_path).lines
    assert re.match(r".*/mine\.toml: cannot be read: \S", line) and "\n" not in line


def test_a_folder_in_a_file_s_place_is_one_fault(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").mkdir()
    with pytest.raises(InvalidProfile, match="cannot be read"):
        load_profile("mine", tmp_path)


def test_prompts_are_checked_beside_the_profiles_first(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    for content, told in (
        (b"\xff", "cannot be read"),
        (b"system", "cannot be read"),
        (b"a = 1", "has no text `system`"),
    ):
        digest = hashlib.sha256(content).hexdigest()
        (tmp_path / "prompts" / "small.toml").write_bytes(content)
        old = "6f2e45ce4786574666b421afe8c0d9cf228e584450357f427ac748deb2776194"
        assert told in str(refused(DEMO.replace(old, digest), tmp_path))


@pytest.mark.parametrize("name", SHIPPED)
def test_fingerprints_are_those_of_the_version_before(name: str) -> None:
    profile = load_profile(name, PROFILES)
    assert tuple(profile.fingerprint(group) for group in GROUPS) == FINGERPRINTS[name]


def test_only_the_command_that_fetches_takes_what_is_not_pinned(tmp_path: Path) -> None:
    text, _ = BROKEN["hub model that is not pinned"]
    refused(text, tmp_path)
    assert load_profile("mine", tmp_path / "profiles", pinned=False).stages["captioner"].revision == "main"


def test_defaults_of_every_parameter_class_are_valid() -> None:
    for back_end in BUILT_IN:
        fields = back_end.parameters.model_fields
        needed = {name: "x" for name, field in fields.items() if field.is_required()}
        chosen = back_end.parameters.model_validate(needed)
        assert back_end.parameters.model_validate(chosen.model_dump(mode="json")) == chosen
        with pytest.raises(ValidationError):
            back_end.parameters.model_validate(needed | {"no_such_parameter": 1})
    assert issubclass(installed().back_end("matcher", "blip2").parameters, Parameters)


def test_calibration_is_a_pair_of_numbers() -> None:
    parameters = installed().back_end("matcher", "open_clip").parameters
    assert parameters.model_validate({"calibration": [1, -2.5]}).model_dump() == {"calibration": (1.0, -2.5)}
    for wrong in ([1], [1, 2, 3], ["1", 2], [True, 2], 5):
        with pytest.raises(ValidationError):
            parameters.model_validate({"calibration": wrong})


# any one key changed


def _keys(table: Mapping[str, Any], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys of all tables, however deep."""
    inside = [_keys(value, (*at, key)) for key, value in table.items() if isinstance(value, dict)]
    return [(*at, key) for key in table] + [key for keys in inside for key in keys]


@st.composite
def one_change(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """A shipped profile with one key renamed or given a value of another type, and the key as it is then."""
    name = draw(st.sampled_from(SHIPPED))
    data = tomllib.loads((PROFILES / f"{name}.toml").read_text())
    key = draw(st.sampled_from(_keys(data)))
    table = data
    for part in key[:-1]:
        table = table[part]
    if draw(st.booleans()):
        # a typo: a character left out, doubled, or another in its place
        at = draw(st.integers(0, len(key[-1]) - 1))
        letter = draw(st.sampled_from(["", key[-1][at] * 2, draw(st.sampled_from("xyz_"))]))
        wrong = key[-1][:at] + letter + key[-1][at + 1 :]
        assume(wrong and wrong not in table and wrong not in _SIBLINGS)
        table[wrong] = table.pop(key[-1])
        return data, wrong
    old = table[key[-1]]
    kinds = {"text": "x", "number": 1.5, "truth": True, "date": date(2026, 1, 1), "list": [1], "table": {"x": 1}}
    same = {str: "text", float: "number", int: "number", bool: "truth", dict: "table", list: "list"}[type(old)]
    table[key[-1]] = kinds[draw(st.sampled_from(sorted(kinds.keys() - {same})))]
    return data, key[-1]


@settings(max_examples=400)
@given(one_change())
def test_any_one_wrong_key_is_named(change: tuple[dict[str, Any], str]) -> None:
    data, key = change
    with TemporaryDirectory() as folder:
        (Path(folder) / "mine.toml").write_text(_toml(data))
        with pytest.raises(ProfileError) as caught:
            load_profile("mine", Path(folder))
    assert isinstance(caught.value, InvalidProfile)
    assert any(key in map(str, fault.key) for fault in caught.value.faults), (key, caught.value.lines)
    assert not any("\n" in line for line in caught.value.lines)


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    st.sampled_from(["stages", "evidence", "ocr", "parameters", "chunk_size", "model"]),
)
def test_anything_anywhere_is_a_profile_error_at_most(value: Any, where: str) -> None:
    data = tomllib.loads(DEMO)
    tables = {"ocr": data["stages"], "parameters": data["stages"]["ocr"], "model": data["stages"]["ocr"]}
    tables.get(where, data)[where] = value
    with TemporaryDirectory() as folder:
        (Path(folder) / "mine.toml").write_text(_toml(data))
        try:
            load_profile("mine", Path(folder))
        except ProfileError as error:
            assert "\n" not in str(error)


def _toml(value: Any, top: bool = True) -> str:
    """A value in TOML, tables inline; null, which TOML lacks, as an empty table."""
    if isinstance(value, dict):
        pairs = [f"{_toml_text(key)} = {_toml(inside, False)}" for key, inside in value.items()]
        return "\n".join(pairs) if top else "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inside, False) for inside in value) + "]"
    if isinstance(value, str):
        return _toml_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "{}"
    return value.isoformat() if isinstance(value, date) else str(value)


def _toml_text(text: str) -> str:
    return json.dumps(text.encode("utf-8", "ignore").decode()).replace("\x7f", "\\u007f")

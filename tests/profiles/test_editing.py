"""A profile from another one: what is changed, what stays, and what is refused."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from models.weights.inventory import PROFILES
from strata.core.profiles import InvalidProfile, load_profile
from strata.errors import InvalidInput
from strata.profiles.editing import _set, new_profile

MODERN = PROFILES / "modern.toml"


def test_what_is_changed_is_noted_and_the_rest_stays(tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    changes = {
        "evidence.region": "0.02",
        "stages.captioner.model": "hub:Qwen/Qwen3-VL-4B-Instruct",
        "stages.captioner.revision": "ebb281ec70b05090aa6165b016eac8ec08e71b17",
        "rules.smallest_side": "200",
    }
    made = new_profile("mine", MODERN, folder, changes)
    lines, before = made.path.read_text().splitlines(), MODERN.read_text().splitlines()
    described, *others = [line for line in lines if line not in before]
    told = 'description = "modern with evidence.region = 0.02, stages.captioner.model = hub:Qwen/Qwen3-VL-4B-Instruct, '
    assert described.startswith(told) and "# modern: " in described
    assert others == [
        "region = 0.02  # modern: 0.01",
        'model = "hub:Qwen/Qwen3-VL-4B-Instruct"  # modern: "hub:Qwen/Qwen3-VL-8B-Instruct"',
        'revision = "ebb281ec70b05090aa6165b016eac8ec08e71b17"  # modern: "0c351dd01ed87e9c1b53cbc748cba10e6187ff3b"',
        "[rules]",
        "smallest_side = 200  # not set in modern",
    ]
    assert [line for line in before if line.startswith("#")] == [line for line in lines if line.startswith("#")]
    # it is a profile as any other, and its own: what is computed with it has other fingerprints
    profile, source = load_profile("mine", folder), load_profile("modern", PROFILES)
    assert (profile.evidence.region, profile.rules.smallest_side) == (0.02, 200)
    assert profile.fingerprint("vision") != source.fingerprint("vision")
    assert profile.stages["composer"] == source.stages["composer"]


_BEFORE = [
    '"""\nlong\ntext"""',
    "'''a\u2028\nb'''",
    '"' + "x" * 300 + '"',
]


@pytest.mark.parametrize(
    ("key", "before", "value"),
    [*(("description", before, '"new"') for before in _BEFORE), ("warnings", '[\n  "a", # b\n  "c",\n]', '["new"]')],
)
def test_the_note_of_what_stood_there_is_one_short_line(key: str, before: str, value: str, tmp_path: Path) -> None:
    rest = "".join(
        f"{line}\n" for line in MODERN.read_text().splitlines() if not line.startswith(("description", "warnings"))
    )
    source = tmp_path / "source.toml"
    source.write_text(f"{key} = {before}\n{rest}")
    made = new_profile("mine", source, tmp_path / "profiles", {key: value})
    # the lines below are as they were
    line, below = made.path.read_text().split("\n", 1)
    made_up = 'description = "source with warnings = [\\"new\\"]"  # not set in source\n'
    assert (made_up in below) == (key != "description")
    below = below.replace(made_up, "")
    assert line.startswith(f"{key} = {value}  # source: {before[0]}") and line.isprintable() and len(line) < 160
    assert [line for line in below.splitlines() if line] == [line for line in rest.splitlines() if line]


def test_a_stage_can_be_left_out(tmp_path: Path) -> None:
    unwanted = ["segmenter", "evidence.second_object", "evidence.object"]
    made = new_profile("less", MODERN, tmp_path / "profiles", {"evidence.object": "0.0"}, unwanted)
    assert "segmenter" not in made.profile.stages
    assert made.profile.evidence.second_object is None
    told = "modern with evidence.object = 0.0, no segmenter, no evidence.second_object, no evidence.object"
    assert made.profile.description == told


@pytest.mark.parametrize("value", ["a\nb", 'say "x"', "\x1b[31m", "ü", "x" * 500])
def test_a_profile_is_told_from_its_source(tmp_path: Path, value: str) -> None:
    """The description is one short line, whatever was set; one's own stays."""
    made = new_profile("mine", MODERN, tmp_path, {"needs": value})
    text = made.profile.description
    assert text.startswith("modern with needs = ") and text.isprintable() and len(text) <= 120
    assert load_profile("mine", tmp_path).needs == value
    own = new_profile("own", MODERN, tmp_path, {"needs": value, "description": "street photographs"})
    assert own.profile.description == "street photographs"
    assert new_profile("copy", MODERN, tmp_path, {}).profile.description == "a copy of modern"
    assert made.profile.fingerprint("llm") == load_profile("modern", PROFILES).fingerprint("llm")


@pytest.mark.parametrize(
    ("changes", "without", "fault"),
    [
        ({"evidence.region": "2"}, (), "evidence.region: should be less than or equal to 1"),
        ({"evidence.regoin": "0.1"}, (), "evidence.regoin: unknown key; did you mean 'region'?"),
        ({"stages.captioner.revision": "main"}, (), "stages.captioner.revision: should be a commit"),
        ({"stages.composer.parameters.prompt": "none"}, (), "stages.composer.parameters.prompt: no prompt 'none'"),
        ({}, ("captioner",), "stages.segmenter: needs the stage 'captioner'"),
    ],
)
def test_nothing_is_written_with_faults(
    changes: dict[str, str], without: tuple[str, ...], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidProfile) as caught:
        new_profile("mine", MODERN, tmp_path / "profiles", changes, without)
    assert any(str(one).startswith(fault) for one in caught.value.faults)
    assert not (tmp_path / "profiles").exists()


@pytest.mark.parametrize(
    ("name", "changes", "without"),
    [
        ("../up", {}, ()),
        ("", {}, ()),
        ("mine", {"": "1"}, ()),
        ("mine", {"stages..model": "1"}, ()),
        ("mine", {"description.more": "1"}, ()),
        ("mine", {}, ("rewriter",)),
        ("mine", {}, ("evidence.none",)),
        ("mine", {}, ("description.more.yet",)),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, changes: dict[str, str], without: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput) as caught:
        new_profile(name, MODERN, tmp_path / "profiles", changes, without)
    assert not isinstance(caught.value, InvalidProfile)
    assert not (tmp_path / "profiles").exists()


def test_a_file_that_exists_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("as it was")
    with pytest.raises(InvalidInput, match="exists"):
        new_profile("mine", MODERN, tmp_path, {})
    assert (tmp_path / "mine.toml").read_text() == "as it was"


def test_a_prompt_of_one_s_own_is_found(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    data = b'system = "Describe."\n'
    (tmp_path / "prompts" / "own.toml").write_bytes(data)
    key, sha256 = "stages.composer.parameters.", hashlib.sha256(data).hexdigest()
    changes = {key + "prompt": "own", key + "prompt_sha256": sha256}
    made = new_profile("mine", MODERN, tmp_path / "profiles", changes)
    assert made.profile.stages["composer"].parameters["prompt"] == "own"


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.integers(-(2**40), 2**40),
        st.floats(allow_nan=False),
        st.booleans(),
        st.text(max_size=30),
        st.lists(st.text()),
    )
)
def test_any_value_that_can_be_written_is_read_again(value: Any) -> None:
    """A value of the command line is TOML, or the text itself; what is written is what was meant."""
    document = tomlkit.parse('[evidence]\nregion = 0.4  # of Monkey\n[stages.ocr]\nmodel = "a"\n')
    text = tomlkit.item(value).as_string()
    _set(document, "stages.ocr.parameters.value", text, "other")
    found = tomllib.loads(tomlkit.dumps(document))
    assert found["stages"]["ocr"]["parameters"]["value"] == value
    assert found["evidence"] == {"region": 0.4}

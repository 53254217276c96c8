"""Rules by features: what they leave out is counted under the first of them, can be read, and comes back without."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.cli import exits
from strata.core import feature_fingerprint
from strata.core.layers.features import part_schema
from strata.core.profiles import Profile
from strata.snapshots import PictureHashes, Selection, Snapshots, axes_of
from strata.snapshots import rules as rules_module
from strata.snapshots.own_files import OwnFiles, read_own_files
from strata.snapshots.rules import RuleError, rules_of
from strata.store.feature_parts import FeatureKind, MissingFeatures, keep_kind, write_features
from strata.store.part_paths import Part
from strata.store.provenance import keep_profile, leave_out_of, provenance_of
from strata.store.store import Store
from tests.cli.test_cli import code_of
from tests.described import described, write_part
from tests.planted import PROFILE

FINGERPRINT = PROFILE.fingerprint("llm")
PART = f"parts/llm/{FINGERPRINT}/{'a' * 16}/00000.parquet"
BAD = ["words < 4", "Terse=words < 4", "terse=words <", "terse=words", "words == 1", "benchmark=text", "=text", "t=1 <"]


@pytest.fixture
def rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Ten rows with 0 to 9 words."""
    write_part(store, [described(f"k{n}", ["car"] * (n % 2), n) for n in range(10)], fingerprint=FINGERPRINT)
    keep_profile(store, PROFILE)
    monkeypatch.setenv("STRATA_STORE", store.uri)
    return store


def with_rules(**rules: str) -> Profile:
    return PROFILE.model_copy(update={"leave_out": rules})


def test_the_first_rule_counts(rows: Store) -> None:
    rules = (("terse", "words < 4  # hardly a sentence"), ("carless", "objects == 0"))
    made = Snapshots(rows).create(
        "few", [f"parts/llm/{FINGERPRINT}/{'a' * 16}/00000.parquet"], Selection(leave_out=rules)
    )
    assert made.manifest.counts.left_out == {"terse": 4, "carless": 3}
    assert made.manifest.counts.selected == made.manifest.counts.passed == 3
    found = [(row.key, row.rule, row.values) for row in made.left_out()]
    assert found[:4] == [(f"k{n}", "terse", {"words": n}) for n in range(4)]
    assert found[4:] == [(f"k{n}", "carless", {"objects": 0}) for n in (4, 6, 8)]


def test_a_row_of_which_nothing_is_known_is_left_out(rows: Store, tmp_path: Path) -> None:
    scores = tmp_path / "own.csv"
    scores.write_text("key,fit\n" + "\n".join(f"k{n},{n}" for n in range(5)), encoding="utf-8")
    own: OwnFiles = read_own_files(scores, None)
    selection = Selection.model_validate({"leave_out": (("unfit", "fit < 2"),), "own": own.kinds})
    made = Snapshots(rows).create("fit", [PART], selection, own=own)
    assert made.manifest.counts.left_out == {"unfit": 7} and made.rows().column("row").to_pylist() == [2, 3, 4]


def test_a_profile_says_what_its_snapshots_leave_out(rows: Store, capsys: pytest.CaptureFixture[str]) -> None:
    # a rule of a profile changes no fingerprint, so nothing is computed again; the last submission's rules count
    profile = with_rules(terse="words < 4")
    assert profile.fingerprint("llm") == FINGERPRINT
    keep_profile(rows, profile)
    assert provenance_of(rows, FINGERPRINT).settings["leave_out"] == {"terse": "words < 4"}
    assert code_of("snapshot", "create", "one", "--from", "demo") == 0
    out = capsys.readouterr().out
    assert "left out: terse 4" in out and "6 selected" in out and "without terse: words < 4" in out
    assert code_of("snapshot", "left-out", "one", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["key"] for line in lines] == ["k0", "k1", "k2", "k3"] and lines[1]["values"] == {"words": 1}
    assert code_of("snapshot", "left-out", "one", "--limit", "1") == 0
    shown = capsys.readouterr()
    assert shown.out == "k0\tterse\twords 0\n" and "--limit" in shown.err
    # a rule of the command replaces that of its name, and False ends it
    assert code_of("snapshot", "create", "two", "--from", "demo", "--leave-out", "terse=words < 2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["left_out"] == {"terse": 2}
    assert code_of("snapshot", "create", "three", "--from", "demo", "--leave-out", "terse=False", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["counts"]["left_out"] == {} and "leave_out" not in made["selection"]
    # the same selection again
    assert code_of("snapshot", "create", "four", "--from", "demo", "--like", "one", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["left_out"] == {"terse": 4}


def test_profiles_that_disagree_are_told(rows: Store) -> None:
    other = PROFILE.model_copy(update={"chunk_size": 17, "leave_out": {"terse": "words < 9"}})
    for profile in (with_rules(terse="words < 4"), other):
        keep_profile(rows, profile)
    both = [FINGERPRINT, other.fingerprint("llm")]
    with pytest.raises(Exception, match="two profiles leave out 'terse'"):
        leave_out_of(rows, both, {})
    assert leave_out_of(rows, both, {"terse": "words < 1"}) == {"terse": "words < 1"}


def test_rules_read_features_in_one_of_their_ways(rows: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves rows out, and a split, which shows the features again, read the way that the selection names."""
    part, ways = Part.parse(PART), ("1" * 16, "2" * 16)
    for sign, way in zip((1, -1), ways, strict=True):
        fingerprint = feature_fingerprint(way, PROFILE.chunk_size)
        kind = FeatureKind(fingerprint=fingerprint, stage="nsfw", way=way, profile=way, chunk_size=PROFILE.chunk_size)
        keep_kind(rows, kind)
        values = pa.array([sign * 0.1 * n for n in range(10)], pa.float32())
        columns = [pa.array([f"k{n}" for n in range(10)]), values, pa.nulls(10, pa.string())]
        write_features(rows, part, kind, "a.tar", pa.table(columns, schema=part_schema("nsfw")))
    axes = axes_of(["nsfw:0.2,0.5"], [])
    asked = Selection(method="balanced", axes=axes, leave_out=(("bare", "nsfw > 0.7"),))
    with pytest.raises(MissingFeatures, match="computed in 2 ways"):
        Snapshots(rows).create("either", [PART], asked)
    made = Snapshots(rows).create("first", [PART], asked.model_copy(update={"ways": {"nsfw": ways[0]}}))
    monkeypatch.setattr(rules_module, "SLICE", 1)  # rows are read in slices
    assert [row.key for row in made.left_out()] == ["k8", "k9"]
    hashes = PictureHashes([f"{n:064}" for n in range(8)], np.zeros((8, 16), np.uint16), np.zeros(8, np.int64))
    parts = Snapshots(rows).split("first", 0.4, 0, "bytes", lambda parts, rows: hashes)
    assert {sum(before for before, _ in one.manifest.composition["nsfw"].values()) for one in parts} == {8}


@pytest.mark.parametrize("text", BAD)
def test_bad_rules_are_refused(text: str, rows: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("snapshot", "create", "bad", "--from", "demo", "--leave-out", text) == exits.USAGE
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert not rows.exists(rows.path("snapshots", "bad.json"))


@given(st.lists(st.text(max_size=30), max_size=3))
def test_any_rules_are_read_or_refused(texts: list[str]) -> None:
    with contextlib.suppress(RuleError):
        rules_of(texts)

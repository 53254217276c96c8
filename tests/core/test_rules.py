"""Rules of a profile: which images they reject, and what a row says of it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from strata.core.profiles import GROUPS, Profile
from strata.core.records import ImageReference, Record, Status
from strata.core.rules import RULES, Rules
from tests.fakes import FAKE_PROFILE


def record(width: int | None = None, height: int | None = None, alt_text: str | None = None) -> Record:
    return Record(key="a", image=ImageReference(uri="u", size=1), width=width, height=height, alt_text=alt_text)


def note(rules: Rules, row: Record) -> tuple[str, str] | None:
    """The rule and the detail of a filtered row; None for a row that passes, which is not changed."""
    ruled = rules.applied(row)
    if ruled.status is Status.SUCCEEDED:
        assert ruled == row
        return None
    assert ruled.status is Status.FILTERED and ruled.failure and ruled.failure.stage == "rules"
    return ruled.failure.error_type, ruled.failure.detail


def test_every_rule_has_a_limit_and_every_limit_a_rule() -> None:
    assert set(RULES) == set(Rules.model_fields)


@pytest.mark.parametrize(
    ("rules", "row", "wanted"),
    [
        ({"smallest_side": 64}, record(640, 63), ("smallest_side", "pixels of the shorter side: 63, at least: 64")),
        ({"smallest_side": 64}, record(63, 640), ("smallest_side", "pixels of the shorter side: 63, at least: 64")),
        ({"smallest_side": 64}, record(64, 64), None),
        (
            {"largest_aspect": 3},
            record(301, 100),
            ("largest_aspect", "longer side over shorter side: 3.01, at most: 3"),
        ),
        ({"largest_aspect": 3}, record(100, 300), None),
        (
            {"longest_alt_text": 3},
            record(alt_text="four"),
            ("longest_alt_text", "characters of the alt text: 4, at most: 3"),
        ),
        ({"longest_alt_text": 4}, record(alt_text="four"), None),
        ({"longest_alt_text": 0}, record(alt_text=None), None),
        ({"smallest_side": 64, "largest_aspect": 3}, record(alt_text="not decoded yet"), None),
        ({}, record(1, 1000, "x" * 9999), None),
    ],
)
def test_rules(rules: dict[str, Any], row: Record, wanted: tuple[str, str] | None) -> None:
    assert note(Rules.model_validate(rules), row) == wanted


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), least=st.integers(1, 300), most=st.floats(1, 50))
def test_a_row_is_filtered_where_a_rule_says_so_and_nowhere_else(
    width: int, height: int, least: int, most: float
) -> None:
    rejected = note(Rules(smallest_side=least, largest_aspect=most), record(width, height))
    small, narrow = min(width, height) < least, max(width, height) / min(width, height) > most
    assert (rejected is not None) == (small or narrow)
    assert rejected is None or rejected[0] == ("smallest_side" if small else "largest_aspect")


def test_only_rules_that_are_set_are_in_the_fingerprint_of_vision() -> None:
    ruled = FAKE_PROFILE.model_copy(update={"rules": Rules(smallest_side=64)})
    other = FAKE_PROFILE.model_copy(update={"rules": Rules(smallest_side=65)})
    assert FAKE_PROFILE.model_copy(update={"rules": Rules()}).fingerprint("vision") == FAKE_PROFILE.fingerprint(
        "vision"
    )
    assert [ruled.fingerprint(group) == FAKE_PROFILE.fingerprint(group) for group in GROUPS] == [True, False, False]
    assert ruled.fingerprint("vision") != other.fingerprint("vision")


@pytest.mark.parametrize(
    "text",
    ["smallest_side = 0", "smallest_side = 1.5", "largest_aspect = 0.5", "largest_aspect = nan", "smalest_side = 64"],
)
def test_rules_that_are_none_are_refused(text: str) -> None:
    settings = FAKE_PROFILE.model_dump() | {"rules": tomllib.loads(text)}
    with pytest.raises(ValidationError):
        Profile.model_validate(settings)


@pytest.mark.parametrize("rule", [{"smallest_side": 10**400}, {"largest_aspect": 1e300}, {"longest_alt_text": 4097}])
def test_a_limit_that_could_never_apply_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate(rule)

"""What counts of many judgments, whatever the order in which they were stored."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from strata.judgments import Judgment, Subject, Verdict, current, reviewed_texts, reviews
from strata.judgments.judgment import Opinion
from tests.described import FINGERPRINT
from tests.judged import judgment


def verdicts(*judgments: Judgment) -> list[tuple[str, str, str]]:
    return [(one.reviewer, one.key, one.verdict) for one in current(judgments)]


def test_a_later_judgment_supersedes_and_an_undone_one_counts_no_more() -> None:
    first = judgment("1", 0)
    second = judgment("2", 1, "rejected", supersedes=first.id, reason="wrong_count")
    undo = judgment("3", 2, "undone", supersedes=second.id)
    redo = judgment("4", 3, "undone", supersedes=undo.id)
    assert verdicts(first, second) == [("Ada", "a", "rejected")]
    assert verdicts(first, second, undo) == [("Ada", "a", "accepted")]
    assert verdicts(first, second, undo, redo) == [("Ada", "a", "rejected")]
    assert verdicts(first, judgment("5", 1, "undone", supersedes=first.id)) == []


def test_of_two_that_nothing_supersedes_the_latest_counts() -> None:
    assert verdicts(judgment("1", 0), judgment("2", 1, "rejected")) == [("Ada", "a", "rejected")]
    # also if the clocks of two machines differ, what is superseded does not count
    later = judgment("1", 5)
    assert verdicts(later, judgment("2", 1, "rejected", supersedes=later.id)) == [("Ada", "a", "rejected")]


def test_judgments_that_supersede_each_other_in_a_circle_have_an_answer() -> None:
    one, two = judgment("1", 0, supersedes="judgment-2"), judgment("2", 1, "rejected", supersedes="judgment-1")
    assert verdicts(one, two) == [("Ada", "a", "rejected")]
    undoing = [judgment("3", 2, "undone", supersedes="judgment-4"), judgment("4", 3, "undone", supersedes="judgment-3")]
    assert verdicts(one, *undoing) == [("Ada", "a", "accepted")]


def test_of_a_repeated_id_the_first_counts() -> None:
    assert verdicts(judgment("1", 1, "rejected"), judgment("1", 0)) == [("Ada", "a", "accepted")]


def test_reviewers_count_by_themselves_and_one_rejection_rejects() -> None:
    ada, bob = judgment("1", 0), judgment("2", 1, "rejected", reviewer="Bob")
    eve = judgment("3", 2, "edited", key="b")
    assert verdicts(ada, bob, eve) == [("Ada", "a", "accepted"), ("Bob", "a", "rejected"), ("Ada", "b", "edited")]
    subjects = [Subject(FINGERPRINT, "a" * 16, key) for key in "abc"]
    assert reviews([ada, bob, eve]) == {subjects[0]: "rejected", subjects[1]: "edited"}
    described = dict.fromkeys(subjects, "As composed.")
    assert reviewed_texts([ada, bob, eve], described) == {subjects[1]: "Better."}
    assert reviewed_texts([ada, judgment("4", 3, key="b"), eve], described) == {
        subjects[0]: "As composed.",
        subjects[1]: "As composed.",
    }


@st.composite
def sessions(draw: st.DrawFn) -> list[tuple[str, str | None]]:
    """What one reviewer does with one record: a verdict, an undo, or a redo, one after another."""
    return draw(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(["accepted", "rejected", "edited"]), st.none()),
                st.tuples(st.just("undo"), st.none()),
                st.tuples(st.just("redo"), st.none()),
            ),
            max_size=12,
        )
    )


def replayed(actions: list[tuple[str, str | None]]) -> tuple[list[Judgment], Verdict | None]:
    """The judgments that a page sends for these actions, and the verdict that a stack of verdicts shows at the end."""
    sent: list[Judgment] = []
    shown: list[Judgment] = []  # the verdicts that count, the last of them is shown
    undos: list[tuple[Judgment, Judgment]] = []  # with what they took back

    def send(verdict: Verdict, supersedes: str | None) -> Judgment:
        sent.append(judgment(str(len(sent)), len(sent), verdict, supersedes=supersedes))
        return sent[-1]

    for action, _ in actions:
        if action == "undo":
            if shown:
                taken = shown.pop()
                undos.append((send("undone", taken.id), taken))
        elif action == "redo":
            if undos:
                undo, taken = undos.pop()
                send("undone", undo.id)
                shown.append(taken)
        else:
            shown.append(send(action, shown[-1].id if shown else None))  # type: ignore[arg-type]
            undos.clear()
    return sent, shown[-1].verdict if shown else None


@settings(max_examples=300, deadline=None)
@given(sessions(), st.randoms(use_true_random=False))
def test_the_order_in_which_judgments_were_stored_does_not_matter(
    actions: list[tuple[str, str | None]], chance: random.Random
) -> None:
    sent, shown = replayed(actions)
    shuffled = [*sent, *chance.sample(sent, len(sent) // 2)]  # some of them twice
    chance.shuffle(shuffled)
    assert [one.verdict for one in current(shuffled)] == ([shown] if shown else [])


def test_what_contradicts_itself_is_no_opinion() -> None:
    base = {"id": "judgment-1", "reviewer": "Ada"}
    wrong: list[dict[str, Any]] = [
        {"verdict": "undone"},
        {"verdict": "edited"},
        {"verdict": "accepted", "reason": "other"},
        {"verdict": "accepted", "supersedes": "judgment-1"},
        {"verdict": "accepted", "sentences": [{"index": 0, "verdict": "rejected"}]},
        {"verdict": "edited", "sentences": [{"index": 0, "verdict": "edited"}]},
        {"verdict": "edited", "sentences": [{"index": 0, "verdict": "edited", "edited": "  "}]},
        {"verdict": "rejected", "sentences": [{"index": 0, "verdict": "rejected"}] * 2},
        {"verdict": "accepted", "reviewer": "A\nda"},
        {"verdict": "accepted", "reviewer": "  "},
        {"verdict": "accepted", "id": "../../x"},
        {"verdict": "accepted", "comment": "\ud800"},
    ]
    for values in wrong:
        try:
            Opinion.model_validate({**base, **values})
        except ValueError:
            continue
        raise AssertionError(values)
    assert Opinion.model_validate({**base, "verdict": "accepted", "reviewer": " Ada\u0301 "}).reviewer == "Ad\u00e1"

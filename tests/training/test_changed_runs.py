"""A run is not continued with any other setting that changes what it computes, and the change is named."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from strata.data import Mixture
from strata.data.mixtures import Share
from tests.training.tiny.squares import Squares, tiny_mixture
from tests.training.tiny.tiny_training import tiny_config
from training.changes import FIXED, FREE, ChangedRun, RunRecord
from training.config import Config, LoraTable, OptimizerTable, QuestionsTable, Table, WindowsTable
from training.splits import split

START = Path("/start")
st.register_type_strategy(Path, st.text("ab", min_size=1).map(Path))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))  # the configuration refuses others


def tables_of(annotation: Any) -> list[type[Table]]:
    kinds = () if get_origin(annotation) is tuple else (annotation, *get_args(annotation))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Table)]


def leaves(table: type[Table] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration with the type of its values; tables in tables by their settings."""
    for name, field in table.model_fields.items():
        if tables_of(field.annotation):
            yield from leaves(tables_of(field.annotation)[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation


QUESTIONS = st.lists(st.builds(QuestionsTable, name=st.text("ab", min_size=1), file=st.just(START)), max_size=2).map(
    tuple
)
LEAVES = dict(leaves())


def with_value(table: Any, name: str, value: Any) -> Any:
    """A copy of a table with another value of "TABLE.KEY"."""
    first, _, rest = name.partition(".")
    return table.model_copy(update={first: with_value(getattr(table, first), rest, value) if rest else value})


def full(output: Path) -> Config:
    return tiny_config(output, START, lora={}, windows={})


def is_free(name: str) -> bool:
    return any(f"{name}.".startswith(f"{free}.") for free in FREE)


@pytest.mark.parametrize("name", [name for name in LEAVES if name != "output"])
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_every_setting_that_is_not_free_may_not_change(name: str, data: st.DataObject) -> None:
    values = QUESTIONS if name == "evaluation.questions" else st.from_type(LEAVES[name])
    old, new = data.draw(values), data.draw(values)
    with tempfile.TemporaryDirectory() as folder:
        before, after = (with_value(full(Path(folder)), name, value) for value in (old, new))
        assume(json.dumps(before.model_dump(mode="json")) != json.dumps(after.model_dump(mode="json")))
        RunRecord(before, tiny_mixture(), 1).write(0, [])
        assert RunRecord(before, tiny_mixture(), 1).check(3, allow=False) == []
        if is_free(name):
            assert RunRecord(after, tiny_mixture(), 1).check(3, allow=False) == []
            return
        with pytest.raises(ChangedRun) as caught:
            RunRecord(after, tiny_mixture(), 1).check(3, allow=False)
    assert re.search(rf"(at step 3: |; ){re.escape(name)}[.:]", str(caught.value)) and "\n" not in str(caught.value)


def test_the_settings_that_may_change_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/train.md").read_text()
    (listed,) = re.findall(r"These may change:(.*?)\.\n", page, re.DOTALL)
    assert set(re.findall(r"`([^`]+)`", listed)) == FREE
    assert all(any(is_free(leaf) for leaf in LEAVES if f"{leaf}.".startswith(f"{name}.")) for name in FREE)


@pytest.mark.parametrize("name", ["lora", "windows"])
def test_a_table_that_is_new_or_gone_is_named_as_a_whole(tmp_path: Path, name: str) -> None:
    given, none = full(tmp_path), full(tmp_path).model_copy(update={name: None})
    for before, after, line in ((none, given, "none → a table"), (given, none, "a table → none")):
        RunRecord(before, tiny_mixture(), 1).write(0, [])
        with pytest.raises(ChangedRun, match=f"at step 3: {name}: {line}\\. Use"):
            RunRecord(after, tiny_mixture(), 1).check(3, allow=False)


@pytest.mark.parametrize("name", [*LEAVES, "lora", "windows", "lora.rank lora.alpha lora.ranks", "sources"])
def test_a_run_of_an_earlier_version_that_lacks_a_setting_is_continued(tmp_path: Path, name: str) -> None:
    """Such a record is continued with the default, which the earlier version used, and with nothing else."""
    config = full(tmp_path).model_copy(update={"lora": LoraTable() if "lora." in name else None, "windows": None})
    RunRecord(config, tiny_mixture(), 1).write(0, [])
    path = tmp_path / "run.json"
    record = json.loads(path.read_text())
    record.pop(name, None)
    for one in name.split():
        record["settings"] = {key: value for key, value in record["settings"].items() if key != one}
    path.write_text(json.dumps(record))
    required = {"model.path", "optimizer.learning_rate", "optimizer.batch_size", "steps", "precision"}
    required |= {"mixture", "optimizer.warmup_steps", "optimizer.accumulation"}
    if name not in required:  # these are in every record, or have no default here
        assert RunRecord(config, tiny_mixture(), 1).check(3, allow=False) == []
    if name in ("lora", "windows"):
        given = config.model_copy(update={"lora": LoraTable()} if name == "lora" else {"windows": WindowsTable()})
        with pytest.raises(ChangedRun, match=f"at step 3: {name}: none → a table"):
            RunRecord(given, tiny_mixture(), 1).check(3, allow=False)


def test_what_the_checkpoint_does_not_fit_may_not_change_at_all(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model.freeze": ("a",), "lora": None, "lora.ranks": {"a": 2}, "lora.full": ("a",)}
    changes |= {"optimizer.rates": {"vision_tower": 2e-6}}
    RunRecord(full(tmp_path), tiny_mixture(), 1).write(0, [])
    for name, value in changes.items():
        with pytest.raises(ChangedRun, match=rf"\({re.escape(name)}[\w.]* cannot change in a run\)$"):
            RunRecord(with_value(full(tmp_path), name, value), tiny_mixture(), 1).check(3, allow=True)
    assert all(any(name.startswith(fixed) for name in changes) for fixed in FIXED)


# another mixture


def share(name: str = "a", count: int = 5, instruction: Any = "Describe it.", supply: int = 9) -> Share:
    return Share(name, "caption", Squares(supply), count, instruction)


@pytest.mark.parametrize(
    ("shares", "line"),
    [
        ([share(count=4), share("b")], "mixture: source a: count 5 → 4"),
        ([share(instruction=("What?\n", "Why?")), share("b")], "mixture: source a: instruction Describe it. → ['What?"),
        ([share(), share("b", supply=8)], "mixture: source b: contents squares/9/False → squares/8/False"),
        ([share()], "mixture: source b: removed (5 samples)"),
        ([share(), share("b"), share("c")], "mixture: source c: added (5 samples)"),
        ([share("b"), share()], "mixture: order of the sources: a, b → b, a"),
    ],
)
def test_the_source_that_has_changed_is_named(tmp_path: Path, shares: list[Share], line: str) -> None:
    RunRecord(full(tmp_path), Mixture([share(), share("b")]), 1).write(0, [])
    with pytest.raises(ChangedRun) as caught:
        RunRecord(full(tmp_path), Mixture(shares), 1).check(3, allow=False)
    assert f"at step 3: {line}" in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).count("mixture: ") == 1


def test_another_split_of_the_same_mixture_is_another_run(tmp_path: Path) -> None:
    trained, _ = split(tiny_mixture(), 0, 0.1)
    RunRecord(full(tmp_path), trained, 1).write(0, [])
    with pytest.raises(ChangedRun, match=r"mixture: \w{16} → \w{16}"):
        RunRecord(full(tmp_path), tiny_mixture(), 1).check(3, allow=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_learning_rate_is_a_number(value: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        OptimizerTable(learning_rate=1e-3, batch_size=1, rates={"vision_tower": value})

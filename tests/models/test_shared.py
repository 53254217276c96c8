"""One loaded model for the stages that name the same weights, and turns in its use."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import models.shared as shared
from models.base import Stage
from models.building import build_stage
from models.deadlines import DEADLINES, Activity, Flight, Limits
from models.stages.florence import load_florence
from models.weights.inventory import PROFILES
from strata.core.profiles import StageSettings, load_profile
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tiny_models.florence, tmp_path_factory.mktemp("florence"))


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may still use models."""
    monkeypatch.setattr(shared, "_LOADED", type(shared._LOADED)())


def _settings(checkpoint: Path, revision: str = "") -> StageSettings:
    return StageSettings(backend="florence2", model=f"local:{checkpoint}", revision=revision)


def _loaded(stage: str, settings: StageSettings) -> Any:
    loaded = build_stage(stage, settings)
    loaded.load()
    return loaded


def test_captioner_and_detector_of_the_same_weights_are_one_model(checkpoint: Path) -> None:
    settings = _settings(checkpoint)
    captioner, detector = _loaded("captioner", settings), _loaded("detector", settings)
    assert captioner._model is detector._model
    assert captioner.turn is detector.turn
    # transformers' tokenizers cannot be used by two threads at a time
    assert captioner._processor is not detector._processor
    assert len(shared._LOADED) == 1


def test_another_revision_precision_or_loader_is_another_model(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [shared.shared_model(_settings(checkpoint, revision), load_florence) for revision in ("1", "2", "1")]
    assert kept[0] is kept[2] and kept[0].model is not kept[1].model
    kept.append(shared.shared_model(_settings(checkpoint, "1"), lambda folder: load_florence(folder)))
    monkeypatch.setattr(shared, "best_precision", lambda: torch.bfloat16)
    kept.append(shared.shared_model(_settings(checkpoint, "1"), load_florence))
    assert len({id(one.model) for one in kept}) == 4


def test_a_model_that_no_stage_uses_is_dropped(checkpoint: Path) -> None:
    captioner = _loaded("captioner", _settings(checkpoint))
    detector = _loaded("detector", _settings(checkpoint))
    del captioner
    gc.collect()
    assert len(shared._LOADED) == 1
    del detector
    gc.collect()
    assert len(shared._LOADED) == 0


def test_a_model_that_two_threads_ask_for_is_loaded_once(checkpoint: Path) -> None:
    loads: list[Path] = []
    begun = threading.Barrier(4)
    found: list[shared.SharedModel] = []

    def load(folder: Path) -> Any:
        loads.append(folder)
        return torch.nn.Linear(1, 1)

    def ask() -> None:
        begun.wait(60)
        found.append(shared.shared_model(_settings(checkpoint), load))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(loads) == 1 and len({id(one) for one in found}) == 1 and len(found) == 4


class Slow(Stage[int, int]):
    """Computes when it is told to, and notes what happens."""

    name = "slow"

    def __init__(self, go: threading.Event, events: list[str], label: str) -> None:
        super().__init__(StageSettings(backend="fake", model="builtin:fake", revision=""))
        self.go, self.events, self.label, self.begun = go, events, label, threading.Event()

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[int]) -> list[int]:
        """The batch."""
        self.events.append(f"{self.label} begins")
        self.begun.set()
        assert self.go.wait(60)
        self.events.append(f"{self.label} ends")
        return list(batch)


@pytest.fixture
def watched() -> Iterator[list[int]]:
    """How many activities there were after each change."""
    seen: list[int] = []

    def publish(activities: Mapping[int, Activity], flights: Mapping[str, Flight]) -> None:
        seen.append(len(activities))

    DEADLINES.report(publish, Limits())
    yield seen
    DEADLINES.report(None, Limits())


def test_stages_of_one_model_take_turns_and_waiting_is_no_hanging(watched: list[int]) -> None:
    events: list[str] = []
    go, asked = threading.Event(), threading.Event()
    first, second = Slow(go, events, "first"), Slow(go, events, "second")
    lock = threading.RLock()

    class Turn:
        def __enter__(self) -> None:
            if threading.current_thread().name == "second":
                asked.set()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    first.turn = second.turn = Turn()
    threads = [threading.Thread(target=stage.run, args=([1],), name=stage.label) for stage in (first, second)]
    threads[0].start()
    assert first.begun.wait(60)
    threads[1].start()
    # the second one is about to wait for its turn when the first may end
    assert asked.wait(60)
    go.set()
    for thread in threads:
        thread.join(60)
    assert events == ["first begins", "first ends", "second begins", "second ends"]
    assert max(watched) == 1


def _same_weights(stage: Any, other: Any) -> bool:
    """Whether two stages compute with the same tensors."""
    one, two = (
        loaded._encoders.model if hasattr(loaded, "_encoders") else loaded._classifier._model
        for loaded in (stage, other)
    )
    return one is two


@pytest.mark.parametrize(
    ("profile", "stages"),
    [("demo", ("matcher", "embedding", "text_embedding")), ("everyday", ("tagger", "matcher", "embedding"))],
)
def test_stages_of_features_share_the_model_of_those_that_describe(profile: str, stages: tuple[str, ...]) -> None:
    settings = load_profile(profile, PROFILES).stages
    first, *others = (_loaded(name, settings[name]) for name in stages)
    assert all(_same_weights(first, other) for other in others)
    assert len(shared._LOADED) == 1
    # the model is in memory as long as one of them uses it
    image, (last,) = Image.new("RGB", (64, 64), "red"), others[-1:]
    before = last.run(["a red car" if "text" in last.name else image])[0][last.name]
    del first, others
    gc.collect()
    assert len(shared._LOADED) == 1
    assert (last.run(["a red car" if "text" in last.name else image])[0][last.name] == before).all()

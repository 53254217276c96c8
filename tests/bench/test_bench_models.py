"""`bench.models`: its three ways do the same work, and its full-size models match the published ones."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForMaskGeneration,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Florence2ForConditionalGeneration,
)

from bench.models import random_models
from bench.models.architectures import FULL, write_architectures
from bench.models.comparison import figures, write_images
from bench.models.measurement import Measurement, Options
from bench.models.measuring import Measuring, busy

IMAGES = 5
DEMO = Options("demo", IMAGES, IMAGES, architectures=False, scale="full", device="cpu", micro_batch=None, processes=1)
TINY = Options("paper", 3, 2, architectures=True, scale="tiny", device="cpu", micro_batch=2, processes=1)


@pytest.mark.slow
def test_models_of_the_newer_profiles_with_random_weights_do_all_their_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Regions and objects reach both matchers, and no text is written twice: the time is that of real weights."""
    caplog.set_level("INFO")
    torch.set_num_threads(1)
    options = replace(TINY, profile="modern", images=2)
    (tmp_path / "images").mkdir()
    files = write_images(tmp_path / "images", options.images, 120)
    answer = Measuring(options, files, tmp_path / "work", threading.Barrier(1)).run(("ours", "bare"))
    items = answer.items
    assert items["captioner of scenes"] == 2
    assert "rejected" not in caplog.text
    assert items["captioner of crops"] > 2
    assert items["matcher"] >= items["second_matcher"] > 2 * random_models.REGIONS
    assert set(answer.bare) == {*items}
    assert all(seconds > 0 for seconds, _ in answer.bare.values())


def _measured(options: Options, folder: Path) -> tuple[Measurement, Path]:
    """The result of one process, and the folder with the output of its ways."""
    (folder / "images").mkdir()
    files = write_images(folder / "images", options.images, 120 if options.architectures else None)
    measuring = Measuring(options, files, folder / "work", threading.Barrier(1))
    return measuring.run(("original", "ours", "bare")), folder / "work"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Measurement, Path]:
    torch.set_num_threads(1)
    return _measured(DEMO, tmp_path_factory.mktemp("demo"))


def test_the_original_s_way_and_ours_say_the_same(demo: tuple[Measurement, Path]) -> None:
    _, folder = demo
    ours = [json.loads(line) for line in (folder / "ours.jsonl").read_text().splitlines()]
    theirs: dict[str, Any] = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in ("captions", "regions", "objects", "matches", "text", "merged")
    }
    assert len(ours) == IMAGES
    # what the other layers contradict is cut from our captions, and nothing is added
    for record, caption in zip(ours, theirs["captions"], strict=True):
        assert set(record["caption"]["text"].lower().split()) - {"and"} <= set(re.split(r"[ ,]+", caption.lower())) | {
            f"{word}," for word in re.split(r"[ ,]+", caption.lower())
        }
    asked: list[tuple[float, float]] = []
    for i, record in enumerate(ours):
        assert [entry["phrase"] for entry in record["regions"]] == [entry["phrase"] for entry in theirs["regions"][i]]
        assert [entry["phrase"] for entry in record["objects"]] == [entry["phrase"] for entry in theirs["objects"][i]]
        assert [entry["box"] for entry in record["objects"]] == [entry["box"] for entry in theirs["objects"][i]]
        assert [line["text"] for line in record["text"]] == [line["text"] for line in theirs["text"][i]]
        matches = [entry["match"] for entry in (*record["regions"], *record["objects"])]
        assert len(theirs["matches"][i]) == len(matches)
        regions = slice(len(record["regions"]))  # the original matches an object on its box, ours on the masked crop
        both = zip(matches[regions], theirs["matches"][i][regions], strict=True)
        asked += [pair for pair in both if pair[0] is not None]
        for layer, out in (("regions", {"low_score", "contradicted"}), ("objects", {"contradicted", "duplicate"})):
            assert {entry["reason"] for entry in record[layer] if entry["match"] is None} <= out
    assert [own for own, _ in asked] == pytest.approx([other for _, other in asked], abs=1e-3)
    assert len(asked) >= IMAGES
    assert len(theirs["merged"]) == IMAGES


def test_the_bare_passes_have_every_item_that_ours_had(demo: tuple[Measurement, Path]) -> None:
    answer, folder = demo
    ours = [json.loads(line) for line in (folder / "ours.jsonl").read_text().splitlines()]
    objects = sum(len(record["objects"]) for record in ours)
    entries = [entry for record in ours for entry in (*record["regions"], *record["objects"])]
    pairs = IMAGES + sum(entry["match"] is not None for entry in entries)
    assert pairs <= IMAGES + len(entries)  # the demo scores all that is not rejected already, repeats too
    assert answer.items == {
        "captioner of scenes": IMAGES,
        "captioner of crops": objects,
        "detector": IMAGES,
        "segmenter": IMAGES,
        "ocr": IMAGES,
        "matcher": pairs,
    }
    assert all(seconds > 0 for seconds, _ in answer.bare.values())
    assert set(answer.stages) == {"captioner", "detector", "segmenter", "ocr", "matcher"}


@pytest.mark.slow
def test_full_size_architectures_run_in_a_tiny_scale(tmp_path: Path) -> None:
    answer, folder = _measured(TINY, tmp_path)
    ours = [json.loads(line) for line in (folder / "ours.jsonl").read_text().splitlines()]
    assert [len(record["regions"]) for record in ours] == [random_models.REGIONS] * TINY.images
    assert [len(record["objects"]) for record in ours] == [20] * TINY.images
    found = figures(TINY, [answer])
    assert found["b/a"] == pytest.approx(found["b: ours, images/s"] / found["a: the original's way, images/s"])
    assert found["days for 427k images"] > 0


def test_the_rates_come_from_the_seconds() -> None:
    first = Measurement(IMAGES, {"ocr": IMAGES}, original=10.0, passes={"text": 10.0})
    own = [
        Measurement(3, {"ocr": 3}, ours=seconds, stages={"ocr": 1.0}, bare={"ocr": (1.5, 8)}) for seconds in (2.0, 1.0)
    ]
    found = figures(DEMO, [first, *own])
    assert (found["a: the original's way, images/s"], found["b: ours, images/s"]) == (0.5, 3.0)
    assert (found["c: bare forward passes, images/s"], found["b/a"], found["b/c"]) == (4.0, 6.0, 0.75)


@pytest.mark.parametrize(
    ("stage", "model_class", "millions"),
    [
        ("captioner", Blip2ForConditionalGeneration, 3745),  # 3.7 billion: OPT-2.7B, ViT-g and the Q-Former
        ("matcher", Blip2ForImageTextRetrieval, 1173),
        ("detector", Florence2ForConditionalGeneration, 770),  # 0.77 billion, the tied embeddings once
        ("segmenter", AutoModelForMaskGeneration, 641),  # ViT-H: 637 million, and prompt encoder and mask decoder
    ],
)
def test_full_size_is_the_published_size(
    stage: str, model_class: Any, millions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_models, "best_device", lambda: torch.device("meta"))
    model = random_models.made(model_class, write_architectures(FULL, tmp_path)[stage])
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
    assert model.config._attn_implementation == "sdpa"


MONITORED = """\
#Time         gpu    pwr     sm    mem      gract
#HH:MM:SS     Idx      W      %      %      GPM:%
 03:33:50       0     77    100      0          -
 03:33:51       0     77    100     10         80
 03:33:52       0     77     90     10         90
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MONITORED, {"GPU busy, percent, nvidia-smi's gract": 85.0}),
        (MONITORED.replace("80\n", "-\n").replace("90\n", "-\n"), {"GPU busy, percent, nvidia-smi's sm": 290 / 3}),
        ("", {}),
    ],
)
def test_the_busy_share_is_the_performance_monitor_s_where_there_is_one(text: str, expected: dict[str, float]) -> None:
    assert busy(text.splitlines()) == pytest.approx(expected)

"""The ablation: its questions and pre-training, its texts, the scoring, and the intervals."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText

from samples.scenes import HELD_OUT_SEED, Scene, make_scene
from samples.training.vision_tower import SIDE, tower_config
from training.ablation.alignment import align
from training.ablation.pool import pooled, rare_things, read_pool, write_pool
from training.ablation.pretraining import pretrain
from training.ablation.questions import ELSE, NOTHING, WHAT, Seen, look, vocabulary
from training.ablation.report import Row, document
from training.ablation.scoring import FIGURES, KINDS, Figure, Tally, estimate, place_of, statements_of, tally
from training.ablation.selections import of_rare
from training.ablation.texts import without_positions
from training.tiny import build_model, build_processor, save_start


def seen(*things: str, signs: tuple[str, ...] = ()) -> Seen:
    """A scene with these phrases, without the vision tower's features."""
    nothing = torch.zeros(0)
    return Seen(nothing, nothing, nothing, nothing, frozenset(things), signs)


def test_pretraining_asks_what_the_scene_answers() -> None:
    rng, scene = np.random.default_rng(0), seen("a red car", "a bee", "a sign", signs=("EXIT",))
    rounds = [scene.questions(rng) for _ in range(60)]
    listed = [[answer for question, answer in asked if question in (WHAT, ELSE)] for asked in rounds]
    assert all(sorted(answers[:-1]) == sorted(scene.phrases) and answers[-1] == NOTHING for answers in listed)
    assert len({tuple(answers) for answers in listed}) == 6
    others = {turn for asked in rounds for turn in asked if turn[0] not in (WHAT, ELSE)}
    assert {question for question, answer in others if answer == "yes"} == {f"Is there {it}?" for it in scene.phrases}
    assert {answer for _, answer in others} == {"yes", "no", 'It says "EXIT".'}
    asked = seen().questions(rng)
    assert asked[0] == (WHAT, NOTHING) and {answer for _, answer in asked[1:]} == {"no"}


def test_alignment_brings_tokens_near_their_words() -> None:
    processor = build_processor(vocabulary(), SIDE, vocabulary=400)
    model = build_model(processor, tower_config(), seed=0, width=32, layers=1)
    rng = np.random.default_rng(0)
    pool = look(model.model.vision_tower.eval(), 4, rng)
    first = align(model, processor.tokenizer, pool, 2, rng)
    assert align(model, processor.tokenizer, pool, 40, rng) < first


def test_pretraining_leaves_the_tower_alone(tmp_path: Path) -> None:
    processor = build_processor(vocabulary(), SIDE, vocabulary=400)
    save_start(tmp_path, processor, tower_config(), seed=0, width=32, layers=1)
    before = AutoModelForImageTextToText.from_pretrained(tmp_path).state_dict()
    pretrain(tmp_path, steps=2, seed=0, align_steps=2)
    after = AutoModelForImageTextToText.from_pretrained(tmp_path).state_dict()
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert same == {name for name in before if "vision_tower" in name}


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Five objects and the sign TICKETS: a cactus above a bell above an elephant, a lemon, a purple dress."""
    return make_scene(HELD_OUT_SEED + 5)


def test_the_truth_scores_full_marks(scene: Scene) -> None:
    told = tally(scene, scene.caption)
    assert (told.recalled, told.present, told.invented) == (5, 5, 0)
    assert (told.told, told.right) == (2, 2)
    places = " ".join(f"{thing.phrase} is at the {place_of(thing, scene.image.size)}." for thing in scene.objects)
    assert tally(scene, places.replace("a ", "A ")).right == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cute icons set", Tally(present=5, words=1)),
        ("A lemon and a red dress.", Tally(present=5, recalled=1, named=2, invented=1, words=1)),
        (
            'A cactus is at the top left of the picture, and a sign that says "TICKETS" is at the bottom.',
            Tally(present=5, recalled=1, named=1, words=1, read=1, quoted=1, told=2, right=1),
        ),
        (
            "The bell is above the cactus. The bell is above the elephant. The whale is below the bell.",
            Tally(present=5, recalled=3, named=4, invented=1, words=1, told=3, right=1, unfounded=1),
        ),
        ("The bell is above the elephant. " * 3, Tally(present=5, recalled=2, named=2, words=1, told=1, right=1)),
        (
            "A whale is at the left. A whale is at the left.",
            Tally(5, named=1, invented=1, words=1, told=1, unfounded=1),
        ),
        ("The bell is above the bell.", Tally(present=5, recalled=1, named=1, words=1)),
        ('A sign that says "HOTEL".', Tally(present=5, words=1, quoted=1, misread=1)),
    ],
)
def test_what_is_wrong_or_missing_is_counted(scene: Scene, text: str, expected: Tally) -> None:
    assert tally(scene, text) == expected


def test_every_statement_is_either_true_or_false(scene: Scene) -> None:
    told = tally(
        scene, 'A bell and a whale. The bell is above the cactus. The whale is below the bell. It says "HOTEL".'
    )
    # true: a bell, a cactus; false: a whale, two relations (one of them of the whale), the word HOTEL
    assert (told.true, told.false) == (2, 4)
    assert (told.founded, told.misplaced) == (1, 1)
    assert told.true + told.false == told.named + told.quoted + told.told


def test_positions_are_left_out_and_nothing_else(scene: Scene) -> None:
    text = (
        'A bell is at the bottom left of the picture, and a sign that says "TICKETS" is at the right. '
        "There is a lemon at the centre. A cactus is at the top of the picture on a hill. "
        'There is a green background. The sign that says "U.S. A." is above the lemon. The bell is below the cactus.'
    )
    shorter = without_positions(text)
    assert shorter == (
        'A bell, and a sign that says "TICKETS". There is a lemon. A cactus on a hill. There is a green background.'
    )
    assert statements_of(scene, text) and not statements_of(scene, shorter)
    before, after = tally(scene, text), tally(scene, shorter)
    assert (after.recalled, after.named, after.read) == (before.recalled, before.named, before.read)


RIGHT, WRONG = Tally(told=1, right=1), Tally(told=1)
SHARE, COUNT = Figure("right", "told"), Figure("right")


def test_a_figure_is_a_share_or_a_count_a_scene() -> None:
    seeds = [[RIGHT, WRONG, Tally(), RIGHT], [WRONG, WRONG, Tally(), RIGHT]]
    assert estimate(seeds, SHARE).value == 3 / 6
    assert estimate(seeds, COUNT).value == 3 / 8
    nothing = estimate([[Tally()] * 4] * 3, SHARE)
    assert all(value != value for value in nothing)


def test_an_interval_covers_the_scenes() -> None:
    rng = np.random.default_rng(0)
    scenes = [RIGHT if drawn else WRONG for drawn in rng.random(400) < 0.3]
    value, low, high = estimate([scenes], SHARE)
    # the normal approximation of the binomial: 1.96 standard errors to each side
    half = 1.96 * (value * (1 - value) / 400) ** 0.5
    assert (value - low, high - value) == pytest.approx((half, half), rel=0.15)
    assert estimate([scenes] * 3, SHARE)[1:] == pytest.approx((low, high), abs=0.01)


def test_an_interval_covers_the_chance_in_a_training() -> None:
    # many scenes that a training gets all right to this part: the scenes add almost nothing
    def training(right: float) -> list[Tally]:
        return [Tally(told=1000, right=round(1000 * right))] * 50

    trainings = [0.40, 0.46, 0.52]
    value, low, high = estimate([training(right) for right in trainings], SHARE)
    assert value == pytest.approx(0.46)
    # of three seeds two are drawn: the extreme resamples have the first or the last alone
    assert (low, high) == pytest.approx((0.40, 0.52))
    alone = estimate([training(0.46)], SHARE)
    assert alone.high - alone.low < 0.001


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_resampled_trainings_have_the_variance_of_their_mean(rights: list[float]) -> None:
    trainings = [[Tally(told=10**6, right=round(10**6 * right))] for right in rights]
    value, low, high = estimate(trainings, SHARE)
    error = np.std(rights, ddof=1) / len(rights) ** 0.5
    assert low <= value + 1e-9 and value - 1e-9 <= high
    assert high - low <= 2 * 3 * error + 1e-5


def test_the_page_has_every_figure_with_its_interval_and_trainings() -> None:
    tallies = [Tally(present=2, recalled=2, named=2), Tally(present=2, named=1, invented=1, told=2, right=1)]
    row = Row("captions", 4, [tallies, tallies[::-1]])
    facts = dict.fromkeys(("steps", "batch_size", "tower_steps", "pretrain_steps", "scenes", "seeds"), 7)
    page = document([row], [row], facts)
    line = next(line for line in page.splitlines() if line.startswith("| captions"))
    assert line.startswith("| captions | 4 | 0.50 (0.00 to 1.00; 0.50, 0.50) | 0.33 (")
    assert line.endswith("| 1.50 (1.00 to 2.00; 1.50, 1.50) | 1.00 (0.00 to 2.00; 1.00, 1.00) |")
    assert "nothing counted" in line
    assert all(f"| {name} |" in page for name in (*FIGURES, *KINDS))


def test_a_pool_has_common_things_and_copies(tmp_path: Path) -> None:
    write_pool(tmp_path, 20)
    pool = list(read_pool(tmp_path).values())
    assert pool == pooled(20)
    scenes = [image.scene for image in pool if not image.kind]
    assert len(scenes) == len(set(scenes)) == 12
    assert {image.scene for image in pool if image.kind} <= set(scenes)
    with tarfile.open(tmp_path / "00000.tar") as tar:
        assert {Path(name).stem for name in tar.getnames()} == {image.key for image in pool}
    things = {name for image in pool for name in image.things}
    assert len(rare_things(pool)) == len(things) // 2


def test_rare_things_alone_are_recalled_or_not(scene: Scene) -> None:
    rare = of_rare(scene, frozenset(["bee", "bell"]))
    assert tally(rare, "There is a bell and a lemon.") == Tally(
        **{"present": 1, "recalled": 1, "named": 2, "invented": 1, "words": 1}
    )

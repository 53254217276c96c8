"""Evaluate the matcher on held-out scenes, and calibrate its scores.

`python -m samples.training.matcher_eval --weights weights/matcher` measures saved weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP

from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from samples.sprites import COLOURS, PHRASES, phrase_of
from samples.training.matcher_crops import (
    Crop,
    clutter_crop,
    distractor_pool,
    loose_crop,
    masked_crop,
    region_crop,
    things_of,
    whole_crop,
)
from samples.training.matcher_model import scores
from samples.training.matcher_texts import THINGS, Text, listing, phrase, truths, vocabulary

CALIBRATION_SEED = HELD_OUT_SEED - 2**20  # used neither for training nor for figures
PHRASE_TEXTS = tuple(Text(phrase(thing), (thing,)) for thing in THINGS if phrase(thing) in PHRASES)

Array = np.typing.NDArray[np.float32]


@dataclass(frozen=True)
class Figures:
    """Held-out figures; shares and areas under the curve in 0..1, scores where the name says so."""

    threshold: float
    auc_pairs: float
    auc_masked_pairs: float
    auc_colour: float
    top1: float
    top1_masked: float
    true_kept: float
    true_kept_masked: float
    false_kept: float
    unseen_kept: float
    unseen_kept_masked: float
    distractors_kept: float
    background_kept: float
    clutter_kept: float
    unknown_words_kept: float
    unknown_words_p95_score: float
    scene_auc: float
    scene_recall_at_1: float

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in asdict(self).items())


def auc(true: Array, false: Array) -> float:
    """Probability that a true pair scores above a false one (area under the ROC curve)."""
    order = np.argsort(np.concatenate([true, false]), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    return float((ranks[: len(true)].sum() - len(true) * (len(true) + 1) / 2) / max(1, len(true) * len(false)))


def object_crops(make: Callable[..., Crop], first_seed: int, scenes: int, sprites: str = "known") -> list[Crop]:
    """Crops of all objects (and of signs, for known objects) of the scenes."""
    crops = []
    for seed in range(first_seed, first_seed + scenes):
        scene = make_scene(seed, SceneOptions(signs=sprites == "known", sprites=sprites))
        rng = np.random.default_rng((seed, 2))
        crops += [make(scene, obj, rng) for obj in things_of(scene)]
    return crops


def phrase_scores(model: CLIP, crops: Sequence[Crop]) -> tuple[Array, Array]:
    """Scores and truths (1, 0, NaN) of all phrases of the world for each crop, both (crops, phrases)."""
    predicted = scores(model, [crop.pixels for crop in crops], [text.text for text in PHRASE_TEXTS])
    return predicted, truths(crops, PHRASE_TEXTS)


def wrong_phrases(labels: Array, seed: int) -> np.typing.NDArray[np.intp]:
    """The number of one false phrase for each crop, drawn evenly; labels is (crops, phrases)."""
    noise = np.random.default_rng(seed).random(labels.shape)
    return np.asarray(np.where(labels == 0, noise, -1).argmax(axis=1))


def calibrate(model: CLIP, scenes: int = 200) -> float:
    """Refit scale and bias so that a score is a probability and 0.5 the threshold to keep at.

    First a line is fitted to the log odds (Platt scaling) for as many true pairs as false ones, half of these drawn
    evenly, half the phrase that fools the model most. Then the bias is moved until what `choose_threshold` chooses
    is 0.5. Uses neither held-out scenes nor unseen sprites. Returns the threshold before the move.
    """
    # log odds of all (crop, phrase) pairs on calibration scenes
    crops = [crop for make in (region_crop, masked_crop) for crop in object_crops(make, CALIBRATION_SEED, scenes)]
    predicted, labels = phrase_scores(model, crops)
    odds = np.log(predicted.clip(1e-7)) - np.log1p(-predicted.clip(0, 1 - 1e-7))
    rows = np.arange(len(crops))
    # one false phrase per crop: a random one, or the one with the highest score
    false = np.where(rows % 2, wrong_phrases(labels, 0), np.where(labels == 0, odds, -np.inf).argmax(axis=1))
    pairs = torch.from_numpy(np.concatenate([odds[labels == 1], odds[rows, false]])).double()
    targets = torch.cat([torch.ones(int((labels == 1).sum())), torch.zeros(len(crops))]).double()
    # Platt scaling: fit gain and shift by logistic regression
    line = torch.tensor([0.0, 0.0], dtype=torch.double, requires_grad=True)
    solver = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(pairs * line[0].exp() + line[1], targets)
        loss.backward()
        return loss

    solver.step(closure)
    # put gain and shift into the model's own scale and bias, then move the threshold to 0.5
    log_gain, shift = line.tolist()
    with torch.no_grad():
        model.logit_scale += log_gain
        model.logit_bias.mul_(np.exp(log_gain)).add_(shift)
        level = choose_threshold(model, scenes)
        model.logit_bias -= float(np.log(level) - np.log1p(-level))
    return level


def choose_threshold(model: CLIP, scenes: int = 200, keep: float = 0.985) -> float:
    """The threshold with the fewest errors on known and unknown objects that keeps a given share of true pairs."""
    makes = (region_crop, masked_crop)
    known = [crop for make in makes for crop in object_crops(make, CALIBRATION_SEED, scenes)]
    pool = distractor_pool(held_out=True)
    others = [crop for make in makes for crop in object_crops(make, CALIBRATION_SEED, scenes // 2, pool)]
    predicted, labels = phrase_scores(model, known)
    true, false = np.sort(predicted[labels == 1]), phrase_scores(model, others)[0].max(axis=1)
    candidates = true[: int((1 - keep) * len(true)) + 1]
    errors = [(true < level).mean() + (false >= level).mean() for level in candidates]
    return float(candidates[int(np.argmin(errors))])


def measure(model: CLIP, scenes: int, threshold: float | None = None) -> Figures:
    """The figures on so many held-out scenes; without a threshold, one is chosen on calibration scenes."""
    level = choose_threshold(model, scenes) if threshold is None else threshold
    seed = HELD_OUT_SEED
    # scores of boxes' and masked crops with all phrases
    region, labels = phrase_scores(model, crops := object_crops(region_crop, seed, scenes))
    masked, masked_labels = phrase_scores(model, object_crops(masked_crop, seed, scenes))
    rows = np.arange(len(crops))
    false = region[rows, wrong_phrases(labels, 1)]
    # scores of what must be rejected, and of whole scenes
    words = unknown_word_scores(model, crops)
    wholes = [whole_crop(make_scene(s, SceneOptions(min_objects=1)), s) for s in range(seed, seed + scenes)]
    return Figures(
        threshold=level,
        auc_pairs=auc(region[labels == 1], false),
        auc_masked_pairs=auc(masked[labels == 1], masked[np.arange(len(masked)), wrong_phrases(masked_labels, 1)]),
        auc_colour=colour_auc(region, crops),
        top1=top1(region, labels),
        top1_masked=top1(masked, masked_labels),
        true_kept=float((region[labels == 1] >= level).mean()),
        true_kept_masked=float((masked[masked_labels == 1] >= level).mean()),
        false_kept=float((false >= level).mean()),
        unseen_kept=kept(model, object_crops(region_crop, seed, scenes // 2, "unseen"), level),
        unseen_kept_masked=kept(model, object_crops(masked_crop, seed, scenes // 2, "unseen"), level),
        distractors_kept=kept(
            model, object_crops(region_crop, seed, scenes // 2, distractor_pool(held_out=True)), level
        ),
        background_kept=kept(model, background_crops(seed, scenes), level),
        clutter_kept=kept(model, [clutter_crop(np.random.default_rng((seed, i))) for i in range(scenes)], level),
        unknown_words_kept=float((words >= level).mean()),
        unknown_words_p95_score=float(np.quantile(words, 0.95)),
        scene_auc=scene_auc(model, wholes),
        scene_recall_at_1=scene_recall(model, wholes[:100]),
    )


def top1(predicted: Array, labels: Array) -> float:
    """Share of the crops whose best phrase of the world is true."""
    return float((labels[np.arange(len(labels)), predicted.argmax(axis=1)] == 1).mean())


def kept(model: CLIP, crops: Sequence[Crop], threshold: float) -> float:
    """Share of the crops whose best phrase of the world passes the threshold."""
    return float((phrase_scores(model, crops)[0].max(axis=1) >= threshold).mean())


def background_crops(first_seed: int, scenes: int) -> list[Crop]:
    """Crops of boxes without objects."""
    seeds = range(first_seed, first_seed + scenes)
    crops = [loose_crop(make_scene(seed), np.random.default_rng((seed, 3))) for seed in seeds]
    return [crop for crop in crops if not crop.maybe]


def colour_auc(predicted: Array, crops: Sequence[Crop]) -> float:
    """Right colour against the five wrong ones, over coloured objects."""
    index = {text.things[0]: i for i, text in enumerate(PHRASE_TEXTS)}
    true, false = [], []
    for row, crop in zip(predicted, crops, strict=True):
        (thing,) = crop.things
        if thing.colour:
            true.append(row[index[thing]])
            false += [row[index[thing._replace(colour=c)]] for c in COLOURS if c != thing.colour]
    return auc(np.array(true, np.float32), np.array(false, np.float32))


def unknown_word_scores(model: CLIP, crops: Sequence[Crop]) -> Array:
    """Scores of object crops with phrases of words that were not used in training, flat."""
    words = vocabulary(held_out=True)
    chosen = np.random.default_rng(5).choice(len(words), 100, replace=False)
    return scores(model, [crop.pixels for crop in crops[:200]], [phrase_of(words[i]) for i in chosen]).ravel()


def scene_auc(model: CLIP, wholes: Sequence[Crop]) -> float:
    """Whole scenes: each thing in it against as many things of the world that are not in it."""
    predicted, labels = phrase_scores(model, wholes)
    rng = np.random.default_rng(6)
    true = predicted[labels == 1]
    return auc(true, rng.choice(predicted[labels == 0], len(true)))


def scene_recall(model: CLIP, wholes: Sequence[Crop]) -> float:
    """Share of scenes whose own list of things scores best of the lists of all these scenes."""
    texts = [listing(crop.things) for crop in wholes]
    predicted = scores(model, [crop.pixels for crop in wholes], texts)
    return float((predicted.argmax(axis=1) == np.arange(len(wholes))).mean())


def main() -> None:
    """Print the figures of saved weights on held-out scenes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--weights", required=True, help="folder that open_clip's local-dir: reads")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--threshold", type=float, default=0.5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{arguments.weights}")
    print(measure(model, arguments.scenes, arguments.threshold))


if __name__ == "__main__":
    main()

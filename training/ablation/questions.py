"""Short questions on drawn scenes, on which the ablation's initial model is pre-trained.

They ask for the things in a scene one by one, whether a thing is there, and for the word on a sign. Descriptions of the
image, positions and relations are left out: the ablation measures whether its texts teach these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from samples.drawings import WORDS
from samples.scenes import SceneSign
from samples.sprites import PHRASES
from samples.training.caption_data import dense_targets, pixels_of, scene_sample, training_scene
from samples.training.vision_tower import GRID, SIDE, word_targets

THINGS = 3  # questions on whether a thing is there
WHAT, ELSE, NOTHING = "What is there?", "What else?", "nothing"

Choice = TypeVar("Choice")


@dataclass(frozen=True, eq=False)
class Seen:
    """A scene's features from the vision tower, (GRID², width), and the truth of its cells.

    classes, colours, words: of each cell, (GRID²,); `UNKNOWN` marks cells without a colour or word. phrases: of all
    things in the scene. signs: the words on its signs.
    """

    features: torch.Tensor
    classes: torch.Tensor
    colours: torch.Tensor
    words: torch.Tensor
    phrases: frozenset[str]
    signs: tuple[str, ...]

    def questions(self, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Questions with their answers: for all things in random order, then for single things and the sign."""
        # the things in random order, ended by "nothing"
        present = sorted(self.phrases)
        order = [present[int(i)] for i in rng.permutation(len(present))] + [NOTHING]
        asked = [(ELSE if n else WHAT, phrase) for n, phrase in enumerate(order)]
        # half of the yes/no questions are about things that are there
        things = [_one_of(present if present and rng.random() < 0.5 else PHRASES, rng) for _ in range(THINGS)]
        asked += [(f"Is there {phrase}?", "yes" if phrase in self.phrases else "no") for phrase in things]
        if len(self.signs) == 1:
            asked.append(("What does the sign say?", f'It says "{self.signs[0]}".'))
        return asked


def _one_of(among: Sequence[Choice], rng: np.random.Generator) -> Choice:
    return among[int(rng.integers(len(among)))]


def vocabulary() -> Iterator[str]:
    """Texts that contain every word of the questions and answers, for the tokenizer."""
    yield f"{WHAT} {ELSE} {NOTHING}"
    yield from (f"Is there {phrase}? yes no" for phrase in PHRASES)
    yield from (f'What does the sign say? It says "{word}".' for word in WORDS)


@torch.no_grad()
def look(tower: nn.Module, count: int, rng: np.random.Generator) -> list[Seen]:
    """Draw scenes of training seeds, and compute their features."""
    # features (N, width, GRID, GRID) -> (N, GRID², width)
    samples = [scene_sample(training_scene(rng)) for _ in range(count)]
    features = tower(pixels_of(samples, SIDE)).last_hidden_state.flatten(2).permute(0, 2, 1)
    found, words = dense_targets(samples, GRID), word_targets(samples, GRID)
    return [
        Seen(
            features[n].clone(),
            found.classes[n].flatten(),
            found.colours[n].flatten(),
            words[n].flatten(),
            frozenset(thing.phrase for thing in sample.things),
            tuple(thing.text for thing in sample.things if isinstance(thing, SceneSign)),
        )
        for n, sample in enumerate(samples)
    ]

"""Short questions on drawn scenes, as a vision tower sees them: what the ablation's start is pre-trained on.

Asked is what there is, thing by thing, whether a thing is there, and what a sign says. No sentence on the picture, no
place and no relation is among the answers: those are what the ablation's texts teach, or do not.
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

THINGS = 3  # that may be there or not
WHAT, ELSE, NOTHING = "What is there?", "What else?", "nothing"

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Seen:
    """A scene as the tower sees it, (GRID², width), and what its cells show, each (GRID²,): classes, colours, words.

    `UNKNOWN` marks cells without colour or word. phrases: of all its things. signs: the words of its signs.
    """

    features: torch.Tensor
    classes: torch.Tensor
    colours: torch.Tensor
    words: torch.Tensor
    phrases: frozenset[str]
    signs: tuple[str, ...]

    def questions(self, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Questions with their answers: what there is, in random order, then others."""
        present = sorted(self.phrases)
        order = [present[int(i)] for i in rng.permutation(len(present))] + [NOTHING]
        asked = [(ELSE if n else WHAT, phrase) for n, phrase in enumerate(order)]
        things = [_one_of(present if present and rng.random() < 0.5 else PHRASES, rng) for _ in range(THINGS)]
        asked += [(f"Is there {phrase}?", "yes" if phrase in self.phrases else "no") for phrase in things]
        if len(self.signs) == 1:
            asked.append(("What does the sign say?", f'It says "{self.signs[0]}".'))
        return asked


def _one_of(among: Sequence[T], rng: np.random.Generator) -> T:
    return among[int(rng.integers(len(among)))]


def vocabulary() -> Iterator[str]:
    """Texts that hold every word of the questions and answers."""
    yield f"{WHAT} {ELSE} {NOTHING}"
    yield from (f"Is there {phrase}? yes no" for phrase in PHRASES)
    yield from (f'What does the sign say? It says "{word}".' for word in WORDS)


@torch.no_grad()
def look(tower: nn.Module, count: int, rng: np.random.Generator) -> list[Seen]:
    """Fresh scenes of training seeds."""
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

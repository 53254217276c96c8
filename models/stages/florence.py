"""What captioner and detector share of Florence-2: loading, tasks, and the parsing of regions."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import Florence2ForConditionalGeneration

from models.devices import features, load_model
from models.items import PLACEHOLDER_IMAGE

BINS = 1000  # values of a coordinate: <loc_0> to <loc_999>
MOST_PHRASES = 3  # of one box; a model that goes in circles names the same box again and again
_LOCATION = re.compile(r"<loc_(\d{1,3})>")
Bins = tuple[int, int, int, int]  # x1, y1, x2, y2


def load_florence(folder: Path) -> Any:
    """Load a Florence-2 checkpoint of any size, without the ban on repeated words that it carries.

    The published checkpoints say `no_repeat_ngram_size=3`, in generation_config.json or in `text_config`. A caption may
    have "to the left of the" twice, and two regions may both begin with "man in black": with the ban, the second one
    comes out broken, in its phrase or in its box.
    """
    model = load_model(Florence2ForConditionalGeneration, folder)
    model.generation_config.no_repeat_ngram_size = None
    # nor a forced end at the token limit, which would hide that a text was cut
    model.generation_config.forced_eos_token_id = None
    return model


class FlorenceTask:
    """A task of a Florence-2 model. Its prompt has the same tokens for all images, so they are made only once.

    task: as in the model card, such as `<CAPTION>`. processor, model: of transformers, of any size.
    """

    def __init__(self, processor: Any, model: Any, task: str) -> None:
        self._processor, self._model = processor.image_processor, model
        # the processor makes tokens only together with an image
        batch = features(processor, model, [PLACEHOLDER_IMAGE], text=[task])
        self._tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def inputs(self, images: Sequence[Image.Image]) -> Any:
        """Make the input of `generate` for the task on each image, a BatchFeature on the model's device."""
        batch = features(self._processor, self._model, images)
        batch.update({name: row.expand(len(images), -1) for name, row in self._tokens.items()})
        return batch


@dataclass(frozen=True)
class WrittenRegion:
    """A region as Florence-2 wrote it. score: the geometric mean of the probabilities of its tokens, 0..1."""

    phrase: str
    bins: Bins
    score: float


class RegionParser:
    """Finds the regions in the tokens of an answer: phrases, each followed by the four locations of one or more boxes.

    A phrase at the end without a whole box is dropped: the tokens ran out. The answer ends where the model goes in
    circles: at a box that it has written before with the same phrase, or with MOST_PHRASES others.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        found = ((index, _LOCATION.fullmatch(token)) for token, index in tokenizer.get_vocab().items())
        self._locations = {index: int(match[1]) for index, match in found if match}
        self._special = set(tokenizer.all_special_ids) - self._locations.keys()

    def parse(self, tokens: Sequence[int], logs: Sequence[float]) -> list[WrittenRegion]:
        """The regions of one answer. logs: the log probability of each token."""
        regions: list[WrittenRegion] = []
        phrases: Counter[Bins] = Counter()
        seen: set[tuple[str, Bins]] = set()
        for region in self._written(tokens, logs):
            if (region.phrase, region.bins) in seen or phrases[region.bins] >= MOST_PHRASES:
                break
            seen.add((region.phrase, region.bins))
            phrases[region.bins] += 1
            regions.append(region)
        return regions

    def _written(self, tokens: Sequence[int], logs: Sequence[float]) -> Iterator[WrittenRegion]:
        pairs = [(token, log) for token, log in zip(tokens, logs, strict=True) if token not in self._special]
        phrase, phrase_logs = "", [0.0]
        for is_box, group in itertools.groupby(pairs, key=lambda pair: pair[0] in self._locations):
            run = list(group)
            if not is_box:
                phrase = str(self._tokenizer.decode([token for token, _ in run])).strip()
                phrase_logs = [log for _, log in run]
                continue
            # boxes without a phrase before them belong to none
            for start in range(0, len(run) - 3, 4) if phrase else ():
                box = run[start : start + 4]
                x1, y1, x2, y2 = (self._locations[token] for token, _ in box)
                own = [*phrase_logs, *(log for _, log in box)]
                yield WrittenRegion(phrase, (x1, y1, x2, y2), min(1.0, math.exp(sum(own) / len(own))))

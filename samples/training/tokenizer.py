"""The demo captioner's processor: Florence-2's class with a byte-level BPE trained on the demo's captions.

What comes out is saved with `save_pretrained` and read by `AutoProcessor.from_pretrained`, the very call that
reads the processor of the published Florence-2 weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import ByteLevelBPETokenizer
from transformers import BartTokenizer, CLIPImageProcessor, Florence2Processor

SCENE_TASK = "<DETAILED_CAPTION>"
CROP_TASK = "<CAPTION>"
# the questions into which Florence2Processor turns these two tasks: their words belong in the vocabulary
PROMPTS = ("What does the image describe?", "Describe in detail what is shown in the image.")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<image>")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_processor(
    texts: Iterable[str], *, image_size: int, image_tokens: int, vocabulary: int = 2000
) -> Florence2Processor:
    """A processor whose tokenizer is trained on `texts`.

    `image_size` is the side in pixels to which images are squeezed, `image_tokens` how many tokens the vision
    tower gives for one image, `vocabulary` the upper bound on tokens (special ones included).
    """
    # the prompts' words must be in the vocabulary
    tokenizer = _train_tokenizer([*PROMPTS, *texts], vocabulary)
    images = CLIPImageProcessor(
        size={"height": image_size, "width": image_size},
        do_center_crop=False,
        image_mean=list(MEAN),
        image_std=list(STD),
        resample=3,
        image_seq_length=image_tokens,
    )
    return Florence2Processor(image_processor=images, tokenizer=tokenizer, post_processor_config={"pure_text": {}})


def _train_tokenizer(texts: list[str], vocabulary: int) -> BartTokenizer:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=vocabulary, min_frequency=1, special_tokens=list(SPECIAL), show_progress=False
    )
    # the fast trainer's result in the form that the library's tokenizer takes
    trained = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(pair) for pair in trained["merges"]]  # pairs, though annotated as strings
    return BartTokenizer(
        vocab=trained["vocab"],
        merges=merges,
        extra_special_tokens={"image_token": "<image>"},
    )

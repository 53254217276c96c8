"""The tokens that images take in a model, and whether they fit the longest conversation at all."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image
from transformers import ProcessorMixin

from training.config import Config, ConfigError

# what processors raise for images that they do not take
REFUSALS = (ValueError, TypeError, IndexError, KeyError, AttributeError, RuntimeError)
SMALL, USUAL, LARGE = 64, 448, 2048  # pixels a side


def tokens_of(processor: ProcessorMixin, images: int, side: int = USUAL) -> tuple[int, int]:
    """The tokens of a short question with so many square images: those of the images, and all. Raises REFUSALS."""
    square = Image.new("RGB", (side, side), "grey")
    content = [*({"type": "image", "image": square} for _ in range(images)), {"type": "text", "text": "What?"}]
    conversations: Any = [[{"role": "user", "content": content}]]
    encoded: Any = processor.apply_chat_template(conversations, tokenize=True, return_dict=True, return_tensors="pt")
    image_token: int = processor.image_token_id  # type: ignore[attr-defined]
    ids = encoded["input_ids"]
    return int((ids == image_token).sum()), int(ids.numel())


def check_longest(processor: ProcessorMixin, config: Config) -> None:
    """Check that a small image, in all its windows, and a question fit `longest`. Raises ConfigError.

    Many processors make equally many tokens of each image, however small: 576 in LLaVA-1.5. If these do not fit, no
    sample with an image does.
    """
    if config.longest is None:
        return
    views = config.windows.across**2 + 1 if config.windows else 1
    try:
        of_images, whole = tokens_of(processor, views, SMALL)
    except REFUSALS as error:
        line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(f"model.path: this model's processor does not take an image: {line}") from None
    # at least one token of the answer
    if whole >= config.longest:
        views_of = f"the {views} windows of an image" if config.windows else "an image"
        raise ConfigError(
            f"longest: {config.longest} tokens are too few: {views_of} and a short question take {whole} "
            f"({of_images} of the image), however small the image is"
        )


def longest_line(processor: ProcessorMixin, config: Config) -> str:
    """A line on how many tokens of `longest` the images of a sample take at most; "" without `longest`.

    The processor must have the limits of `limit_images`. Raises REFUSALS.
    """
    if config.longest is None:
        return ""
    side = LARGE if config.max_pixels is None else max(1, math.isqrt(config.max_pixels))
    views = config.windows.across**2 + 1 if config.windows else 1
    tokens, _ = tokens_of(processor, views, side)
    which = "an image with its windows, of" if config.windows else "an image of"
    line = f"{which} {side} × {side} pixels takes {tokens:,} of the {config.longest:,} tokens of a conversation"
    return f"{line}; images are made smaller where this is too much" if tokens >= config.longest else line

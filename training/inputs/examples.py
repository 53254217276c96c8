"""Samples in the form that TRL's collator reads."""

from __future__ import annotations

from typing import Any

from PIL import Image

from strata.data import Sample
from strata.data.sources.conversations import IMAGE_TOKEN
from training.config import WindowsTable
from training.inputs.windows import windows_of


def example_of(sample: Sample, windows: WindowsTable | None = None) -> dict[str, Any]:
    """Convert a sample to TRL's form. TRL puts one image before the first question; several have their own places."""
    views = [views_of(image, windows) for image in sample.images]
    images = [view for of_image in views for view in of_image]
    if len(views) < 2:
        return {"images": images, "messages": sample.conversation}
    messages = [{**turn, "content": content_parts(turn["content"], len(views[0]))} for turn in sample.conversation]
    return {"images": images, "messages": messages}


def views_of(image: Image.Image, windows: WindowsTable | None) -> list[Image.Image]:
    """What the model sees of an image: its windows and the whole, or the image itself without windows."""
    return windows_of(image, windows.side, windows.across) if windows else [image]


def content_parts(text: str, views: int = 1) -> list[dict[str, str]]:
    """Split a text at "<image>" into the content parts of TRL and OpenAI: {"type": "image"} or {"type": "text"}.

    views: the number of images that stand for each "<image>".
    """
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(text.split(IMAGE_TOKEN)):
        parts += [{"type": "image"}] * views if number else []
        parts += [{"type": "text", "text": piece.strip("\n")}] if piece.strip() else []
    return parts

"""Monkey's sliding windows: a large image as several square windows and the whole, each as large as the tower reads.

Li et al., arXiv 2311.06607, section 3.1, and Yuliang-Liu/Monkey, monkey_model/visual.py: the image is resized to
896 × 896, cut into 2 × 2 windows of 448 without overlap, row by row, and the whole image, resized to 448 × 448, comes
last. Monkey gives each window a LoRA adapter of its own in the tower; here one adapter sees all views.
"""

from __future__ import annotations

from PIL import Image
from transformers import ProcessorMixin

from training.config import ConfigError
from training.inputs.lengths import REFUSALS, tokens_of


def windows_of(image: Image.Image, side: int, across: int) -> list[Image.Image]:
    """across × across windows of side × side pixels, row by row, and last the whole image at that size."""
    large = image.resize((side * across, side * across), Image.Resampling.BICUBIC)
    corners = [(left * side, top * side) for top in range(across) for left in range(across)]
    windows = [large.crop((left, top, left + side, top + side)) for left, top in corners]
    return [*windows, large.resize((side, side), Image.Resampling.BICUBIC)]


def check_several_images(processor: ProcessorMixin, images: int) -> None:
    """Check that the processor makes image tokens for each of several images of a sample. Raises ConfigError."""
    try:
        one, several = (tokens_of(processor, number)[0] for number in (1, images))
    except REFUSALS as error:
        line = str(error).strip().partition("\n")[0]
        raise ConfigError(f"windows: this model's processor does not take {images} images a sample: {line}") from None
    if not one or several != images * one:
        raise ConfigError(
            f"windows: this model's processor makes {one} image tokens of one image and {several} of {images}: "
            "it does not take several images a sample"
        )

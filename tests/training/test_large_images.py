"""Large images in the real classes: a page through the Monkey recipe, and images that cannot fit `longest`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from transformers import (
    CLIPImageProcessor,
    LlavaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from trl.chat_template_utils import qwen2_5_vl_chat_template

from bench.models.vision_language import VISION, tokenizer_of_bytes
from strata.data import Mixture, SampleError
from strata.data.sources.missing_files import Missing
from strata.data.sources.samples import RawSample
from tests.checkout import CHECKOUT
from tests.training.test_chat_templates import llava_processor
from tests.training.tiny.squares import tiny_mixture
from tests.training.tiny.tiny_training import make_start, tiny_config
from training.config import Config, ConfigError, load_config
from training.inputs.collation import limit_images
from training.inputs.lengths import check_longest, longest_line, tokens_of
from training.losses import LossLog
from training.skips import SkipLog
from training.train import train
from training.trainer import StageTrainer

MONKEY = CHECKOUT / "training" / "configs" / "monkey.toml"
PAGE = (1700, 2200)  # a letter page at 200 dpi


class Pages:
    """Scanned pages with a question each. answers: their lengths in characters."""

    identity = "pages"

    def __init__(self, *answers: int) -> None:
        self.answers = answers

    def __len__(self) -> int:
        return len(self.answers)

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """Draw the pages."""
        return [self._page(number) for number in numbers]

    def _page(self, number: int) -> RawSample:
        page, buffer = Image.new("RGB", PAGE, "white"), io.BytesIO()
        ImageDraw.Draw(page).text((200, 300), f"Page {number}", "black", font_size=80)
        page.save(buffer, "PNG")
        return RawSample(str(number), (buffer.getvalue(),), ["Which page?", "x" * self.answers[number]])

    def missing(self) -> Missing:
        """Return that nothing is."""
        return Missing([])

    def problems(self) -> tuple[int, str]:
        """Return none."""
        return 0, ""

    def explain(self, number: int, reason: str) -> SampleError:
        """Name the number."""
        return SampleError(f"{number}: {reason}", str(number))


def qwen2_5_vl(folder: Path) -> None:
    """Qwen2.5-VL with the published processor (preprocessor_config.json of the 7B model) and tiny random weights."""
    tokenizer = tokenizer_of_bytes(VISION)
    ids: dict[str, Any] = {
        f"{name}_token_id": tokenizer.get_vocab()[mark] for name, mark in zip(NAMES, VISION, strict=True)
    }
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 1,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [],  # full attention over 14,000 patches takes a minute on a CPU
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2]},
        },
        **ids,
    )
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    images = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_845_056, patch_size=14, merge_size=2)
    processor = Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=qwen2_5_vl_chat_template)
    processor.save_pretrained(folder)


NAMES = ("vision_start", "vision_end", "image", "video")


def test_a_page_through_the_monkey_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qwen2_5_vl(tmp_path / "start")
    recipe = load_config(MONKEY)
    assert recipe.longest == 4096 and recipe.lora is not None
    config = recipe.model_copy(
        update={
            "output": tmp_path / "run",
            "model": recipe.model.model_copy(update={"path": str(tmp_path / "start")}),
            "optimizer": recipe.optimizer.model_copy(update={"batch_size": 1, "accumulation": 1}),
            "epochs": None,
            "steps": 1,
            "readers": 0,
            "precision": "float32",
        }
    )
    batches: list[dict[str, Any]] = []
    compute = StageTrainer.compute_loss

    def recorded(trainer: StageTrainer, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        batches.append(dict(inputs))
        return compute(trainer, model, inputs, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "compute_loss", recorded)
    # the answer does not fit, and is cut
    train(config, Mixture.of(Pages(2000), "", "pages"))
    (batch,) = batches
    tokenizer = tokenizer_of_bytes(VISION)
    of_image = int((batch["input_ids"] == tokenizer.get_vocab()["<|image_pad|>"]).sum())
    assert of_image == int(batch["image_grid_thw"].prod()) // 4 and 3400 < of_image <= 3584  # 4,819 without the limit
    assert batch["input_ids"].shape == (1, 4096)
    (line,) = LossLog(config.output).read()
    assert 0 < line["loss"] < 20 and line["tasks"]["pages"]["tokens"] > 400
    assert SkipLog(config.output).read() == []


# images that cannot fit


def llava() -> LlavaProcessor:
    """LLaVA-1.5's processor: 336 × 336 pixels in patches of 14, and so 576 tokens of each image."""
    found = llava_processor()
    found.image_processor = CLIPImageProcessor(size={"height": 336, "width": 336}, do_center_crop=False)
    return found


def config_of(**changes: Any) -> Config:
    return tiny_config(Path("/out"), Path("/start"), **changes)


def test_an_image_of_a_fixed_number_of_tokens_must_fit() -> None:
    of_image, whole = tokens_of(llava(), 1, 64)
    assert of_image == tokens_of(llava(), 1, 900)[0] == 576 < whole
    check_longest(llava(), config_of(longest=whole + 1))
    check_longest(llava(), config_of())
    message = rf"^longest: 512 tokens are too few: an image and a short question take {whole} \(576 of the image\)"
    with pytest.raises(ConfigError, match=message):
        check_longest(llava(), config_of(longest=512))
    with pytest.raises(ConfigError, match=r"2048 tokens are too few: the 5 windows of an image .*\(2880 of"):
        check_longest(llava(), config_of(longest=2048, windows={"side": 336}))


def test_a_training_refuses_before_its_first_step(tmp_path: Path) -> None:
    start = make_start(tmp_path)  # 4 tokens of each image
    with pytest.raises(ConfigError, match=r"^longest: 5 tokens are too few: .*\(4 of the image\)"):
        train(tiny_config(tmp_path / "run", start, longest=5), tiny_mixture())
    assert not (tmp_path / "run" / "skipped.jsonl").exists()


def test_images_of_any_size_fit_if_their_smallest_does() -> None:
    tokenizer = tokenizer_of_bytes(VISION)
    images = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_845_056, patch_size=14, merge_size=2)
    processor = Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=qwen2_5_vl_chat_template)
    check_longest(processor, config_of(longest=128))
    with pytest.raises(ConfigError, match="8 tokens are too few"):
        check_longest(processor, config_of(longest=8))
    # the processor of Qwen2.5-VL with the limits of the Monkey recipe
    limit_images(processor, config_of(longest=4096))
    line = longest_line(processor, config_of(longest=4096))
    assert line == "an image of 2048 × 2048 pixels takes 3,481 of the 4,096 tokens of a conversation"
    assert longest_line(processor, config_of(longest=3481)).endswith("; images are made smaller where this is too much")
    assert longest_line(processor, config_of()) == ""

"""The roofline: its counts against torch's own counter, its models against published sizes, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from bench.roofline.cards import CARDS
from bench.roofline.configs import PUBLISHED
from bench.roofline.counting import attention_flops, cache_bytes, flops_of, patches_flops, token_flops
from bench.roofline.page import page
from bench.roofline.plot import plot
from bench.roofline.work import Load, Work, model, works_of
from strata.core import FEATURES, STAGES_OF, Profile, load_profile
from tests.checkout import CHECKOUT

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 50,
}


def profile(name: str) -> Profile:
    return load_profile(name, CHECKOUT / "models" / "profiles")


def test_a_decoder_s_operations_are_those_that_torch_counts() -> None:
    model = Qwen3ForCausalLM(Qwen3Config(**TEXT)).eval()
    tokens = 24
    counted = flops_of(lambda: model(input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=False))
    # torch counts attention to all tokens, also those that the mask leaves out
    formula = token_flops(model.model.layers, model.lm_head) * tokens + attention_flops(model.config, tokens, tokens)
    assert formula == pytest.approx(counted, rel=1e-6)
    assert cache_bytes(model.config, 10) == 2 * 3 * 2 * 16 * 10 * 2


def test_an_image_encoder_s_operations_are_those_that_torch_counts() -> None:
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]}
    config = Qwen3VLConfig(text_config=TEXT | {"rope_parameters": rope}, vision_config=vision)
    visual = Qwen3VLForConditionalGeneration(config).eval().model.visual
    pixels = torch.zeros(8 * 12, 3 * 2 * 16 * 16)
    counted = flops_of(lambda: visual(pixels, grid_thw=torch.tensor([[1, 8, 12]])))
    assert patches_flops(visual, 8, 12) == pytest.approx(counted, rel=1e-6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_models_have_the_parameters_of_the_published_ones(name: str) -> None:
    parameters = {id(one): one.numel() for one in model(name).parameters()}
    assert sum(parameters.values()) / 1e6 == pytest.approx(PUBLISHED[name], rel=2e-3)


def test_a_phase_takes_what_is_longer() -> None:
    card = CARDS["h200"]
    decode = Work("composer", "decode", 10, 1e9, 8e9, 1e6, batch=4)
    assert decode.bound(card) == "memory"
    assert decode.seconds(card) == pytest.approx(10 * (2e9 + 1e6) / 4.8e12)
    assert Work("segmenter", "encode", 2, 989e12, 1.0).seconds(card) == pytest.approx(2.0)


def test_every_stage_with_weights_is_counted_and_the_page_is_true(tmp_path: Path) -> None:
    """SAM ViT-H's encoder has 2.98 TMACs in its paper's code; the page in docs is what the command writes."""
    works = {name: works_of(profile(name), Load()) for name in ("paper", "small", "modern")}
    for name, found in works.items():
        wanted = {stage for stage in profile(name).stages if stage not in ("ocr", "verifier", *STAGES_OF[FEATURES])}
        assert {one.stage for one in found} == wanted, name
        assert all(one.flops > 0 and one.items > 0 for one in found)
    (encoder,) = [one for one in works["paper"] if one.phase == "images: encode" and one.stage == "segmenter"]
    assert encoder.flops == pytest.approx(2 * 2.98e12, rel=0.01)
    from bench.roofline.__main__ import table

    card = CARDS["h200"]
    tables = {name: table(found, card) for name, found in works.items()}
    assert page(tables, works, card) == (CHECKOUT / "docs" / "roofline.md").read_text("utf-8")
    assert plot(works, card) == (CHECKOUT / "docs" / "roofline.svg").read_text("utf-8")

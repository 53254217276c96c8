"""The work of each stage of a profile for one image: what is called how often, with its operations and bytes.

What an image has is stated in `Load`: it decides as much as the models do. The defaults are what `bench.models` gives
the models, so that its measured seconds can be divided by these.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bench.roofline.cards import Card
from bench.roofline.configs import made
from bench.roofline.counting import attention_flops, bytes_of, cache_bytes, flops_of, patches_flops, token_flops
from strata.core import FEATURES, STAGES_OF, Profile, StageSettings


@dataclass(frozen=True)
class Load:
    """What one image has: regions; objects, None for the most of the profile; tokens of texts (means)."""

    regions: int = 10
    objects: int | None = None
    scene_tokens: int | None = None  # None: the profile's limit, or 16 for BLIP-2, whose captions are short
    crop_tokens: int = 16
    region_tokens: int = 160
    notes_tokens: int = 1100  # of the composer's prompt: 600 of instructions and some 500 of notes
    text_tokens: int = 150
    question_tokens: int = 24


@dataclass(frozen=True)
class Work:
    """One kind of call. items: how many of them an image has; flops, own_bytes: of one item; weight_bytes: read once
    for a batch of `batch` items.
    """

    stage: str
    phase: str
    items: float
    flops: float
    weight_bytes: float
    own_bytes: float = 0.0
    batch: int = 1

    @property
    def total_flops(self) -> float:
        """Of an image."""
        return self.items * self.flops

    @property
    def total_bytes(self) -> float:
        """Of an image, with its share of the weights."""
        return self.items * (self.weight_bytes / self.batch + self.own_bytes)

    def seconds(self, card: Card) -> float:
        """The least that an image can take: its products at the card's peak, or its bytes at the memory's rate."""
        return max(self.total_flops / card.flops, self.total_bytes / card.bandwidth)

    def bound(self, card: Card) -> str:
        """Which of both decides."""
        return "products" if self.total_flops / card.flops >= self.total_bytes / card.bandwidth else "memory"


CROP_SIDE = 16  # patches of 16 pixels: the profiles' min_pixels, 256×256; smaller crops are enlarged to it
Decoder = tuple[Any, list[Any]]  # its config, and the modules that compute each token
model = functools.cache(made)


def meta(*shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """An input on the meta device."""
    return torch.empty(*shape, device="meta", dtype=dtype)


def works_of(profile: Profile, load: Load) -> list[Work]:
    """The calls of all stages that run models on a GPU, in the profile's order; features are computed apart."""
    found: list[Work] = []
    for name, settings in profile.stages.items():
        makers = {
            "blip2": _blip2_captioner if name == "captioner" else _blip2_matcher,
            "florence2": _florence,
            "sam": _sam,
            "open_clip": _open_clip,
            "qwen3_vl": _qwen_captioner if name == "captioner" else _composer,
            "yes": _qwen_matcher,
            "transformers": _composer,
            "openai": _composer,
        }
        if settings.backend in makers and name not in ("verifier", *STAGES_OF[FEATURES]):
            found += makers[settings.backend](name, settings, _filled(profile, load))
    return found


def _filled(profile: Profile, load: Load) -> Load:
    """The load with the profile's own limit of objects."""
    segmenter = profile.stages.get("segmenter")
    most = segmenter.parameters.get("max_masks", 20) if segmenter else 0
    return load if load.objects is not None else Load(**{**load.__dict__, "objects": most})


def _decoded(stage: str, kind: str, parts: Decoder, items: float, prompt: int, new: int, batch: int) -> Iterator[Work]:
    """Prefill and decoding of a decoder."""
    config, modules = parts
    one, weights = token_flops(*modules), bytes_of(*modules)
    prefill = one * prompt + attention_flops(config, prompt, prompt / 2)
    yield Work(stage, f"{kind}: prefill", items, prefill, weights, cache_bytes(config, prompt), batch)
    context = prompt + new / 2
    step = one + attention_flops(config, 1, context)
    yield Work(stage, f"{kind}: decode", items * (new - 1), step, weights, cache_bytes(config, context), batch)


def _blip2_captioner(stage: str, settings: StageSettings, load: Load) -> Iterator[Work]:
    blip = model(settings.model.partition(":")[2])
    image, query = meta(1, 3, 224, 224), meta(1, 32, blip.config.qformer_config.hidden_size)
    vision = flops_of(lambda: blip.vision_model(image))
    patches = (224 // 14) ** 2 + 1
    seen = meta(1, patches, blip.config.vision_config.hidden_size)
    qformer = flops_of(lambda: blip.qformer(query_embeds=query, encoder_hidden_states=seen))
    weights = bytes_of(blip.vision_model, blip.qformer)
    crops, beams, batch = load.objects or 0, int(settings.parameters.get("scene_beams", 1)), settings.batch_size
    yield Work(stage, "images and crops: encode", 1 + crops, vision + qformer, weights, 0.0, batch)
    text = blip.language_model
    parts = (text.config, [text.model.decoder.layers, text.lm_head])
    scene = load.scene_tokens or 16
    yield from _decoded(stage, f"captions, {beams} beams", parts, beams, 33, scene, batch * beams)
    yield from _decoded(stage, "phrases", parts, crops, 33, load.crop_tokens, batch)


def _blip2_matcher(stage: str, settings: StageSettings, load: Load) -> Iterator[Work]:
    blip = model(settings.model.partition(":")[2])
    image, width = meta(1, 3, 224, 224), blip.config.qformer_config.hidden_size
    vision = flops_of(lambda: blip.vision_model(image))
    # 32 queries, which attend to the image too, and at most 32 tokens of the phrase
    seen = meta(1, (224 // 14) ** 2 + 1, blip.config.vision_config.hidden_size)
    both = meta(1, 32 + 32, width)
    qformer = flops_of(lambda: blip.qformer(query_embeds=both, query_length=32, encoder_hidden_states=seen))
    weights = bytes_of(blip.vision_model, blip.qformer)
    yield Work(stage, "pairs", _pairs(load), vision + qformer, weights, 0.0, settings.batch_size)


def _pairs(load: Load) -> int:
    """The caption, each region and each object with its phrase."""
    return 1 + load.regions + (load.objects or 0)


def _florence(stage: str, settings: StageSettings, load: Load) -> Iterator[Work]:
    florence = model(settings.model.partition(":")[2])
    inner, batch = florence.model, settings.batch_size
    bart = inner.language_model
    config, width, prompt = bart.config, bart.config.d_model, 577 + 12
    vision = flops_of(lambda: inner.get_image_features(meta(1, 3, 768, 768)))
    encoder = flops_of(lambda: bart.encoder(inputs_embeds=meta(1, prompt, width)))
    weights = bytes_of(inner.vision_tower, inner.multi_modal_projector, bart.encoder)
    yield Work(stage, "images: encode", 1, vision + encoder, weights, 0.0, batch)
    # decoding: each token attends to the encoder's output, whose keys and values are kept
    keys = 4.0 * config.decoder_layers * prompt * width * width  # of the encoder's output, computed once an image
    attention = 4.0 * config.decoder_layers * width * (prompt + load.region_tokens / 2)
    step = token_flops(bart.decoder.layers, florence.lm_head) - keys / prompt + attention
    cache = 2.0 * config.decoder_layers * width * (prompt + load.region_tokens / 2) * 2
    tokens = load.region_tokens if stage == "detector" else 0
    if stage == "captioner":
        tokens = load.scene_tokens or 60
    yield Work(stage, "texts: keys of the image", 1, keys, 0.0, 0.0, batch)
    yield Work(stage, "texts: decode", tokens, step, bytes_of(bart.decoder.layers, florence.lm_head), cache, batch)


def _sam(stage: str, settings: StageSettings, load: Load) -> Iterator[Work]:
    sam = model(settings.model.partition(":")[2])
    vision = flops_of(lambda: sam.get_image_embeddings(meta(1, 3, 1024, 1024)))
    yield Work(stage, "images: encode", 1, vision, bytes_of(sam.vision_encoder), 0.0, settings.batch_size)
    p = settings.parameters
    side, batch = int(p.get("points_per_side", 32)), int(p.get("points_per_batch", 64))
    levels = sam.get_image_embeddings(meta(1, 3, 1024, 1024))
    points, labels = meta(1, batch, 1, 2), meta(1, batch, 1, dtype=torch.int)
    call = functools.partial(
        sam, image_embeddings=levels, input_points=points, input_labels=labels, multimask_output=True
    )
    decoder = flops_of(call) / batch
    # the embedding of the image is copied for each point, and three masks of 256×256 are written
    own = 2.0 * (256 * 64 * 64 + 3 * 256 * 256)
    yield Work(stage, "points: decode", side**2, decoder, bytes_of(sam.mask_decoder), own, batch)


def _open_clip(stage: str, settings: StageSettings, load: Load) -> Iterator[Work]:
    clip = model(settings.model.partition(":")[2])
    side = int(settings.model.rpartition("-")[2])
    image = flops_of(lambda: clip.visual(meta(1, 3, side, side)))
    text = flops_of(lambda: clip.text(meta(1, 64, dtype=torch.long)))
    batch = settings.batch_size
    yield Work(stage, "crops", _pairs(load), image, bytes_of(clip.visual), 0.0, batch)
    # the table of 256,000 words is looked up, not multiplied with: its bytes are not read
    weights = bytes_of(clip.text) - bytes_of(clip.text.token_embedding)
    yield Work(stage, "phrases", _pairs(load), text, weights, 0.0, batch)


def _qwen_parts(qwen: Any) -> Decoder:
    text = qwen.model.language_model
    return text.config, [text.layers, qwen.lm_head]


def _qwen_captioner(stage: str, settings: StageSettings, load: Load) -> Iterator[Work]:
    qwen, p = model(settings.model.partition(":")[2]), settings.parameters
    crops, batch = load.objects or 0, settings.batch_size
    # an image of 640×480 has fewer pixels than the profiles' most; a crop is enlarged to the least
    whole, part = 30 * 40 // 4, CROP_SIDE**2 // 4
    visual = qwen.model.visual
    weights = bytes_of(visual)
    yield Work(stage, "images: encode", 1, patches_flops(visual, 30, 40), weights, 0.0, batch)
    yield Work(stage, "crops: encode", crops, patches_flops(visual, CROP_SIDE, CROP_SIDE), weights, 0.0, batch)
    parts = _qwen_parts(qwen)
    scene = load.scene_tokens or int(p.get("scene_tokens", 200))
    yield from _decoded(stage, "captions", parts, 1, whole + 60, scene, batch)
    yield from _decoded(stage, "phrases", parts, crops, part + 60, load.crop_tokens, batch)


def _qwen_matcher(stage: str, settings: StageSettings, load: Load) -> Iterator[Work]:
    qwen, batch = model(settings.model.partition(":")[2]), settings.batch_size
    visual, part = qwen.model.visual, CROP_SIDE**2 // 4
    pairs = load.regions + (load.objects or 0)
    flops = patches_flops(visual, CROP_SIDE, CROP_SIDE)
    yield Work(stage, "crops: encode", pairs, flops, bytes_of(visual), 0.0, batch)
    config, modules = _qwen_parts(qwen)
    prompt = part + load.question_tokens
    one = token_flops(*modules)
    flops = one * prompt + attention_flops(config, prompt, prompt / 2)
    yield Work(stage, "questions: prefill", pairs, flops, bytes_of(*modules), 0.0, batch)


def _composer(stage: str, settings: StageSettings, load: Load) -> Iterator[Work]:
    """The composer in process, or that of a chat server if it serves a known model: on a card of its own then."""
    name = settings.model.partition(":")[2]
    if settings.backend == "openai":
        name = str(settings.parameters.get("served_model"))
    writer = model(name)
    if hasattr(writer.config, "vision_config"):
        parts = _qwen_parts(writer)
    else:
        parts = (writer.config, [writer.model.layers, writer.lm_head])
    kind = "descriptions (a server's)" if settings.backend == "openai" else "descriptions"
    yield from _decoded(stage, kind, parts, 1, load.notes_tokens, load.text_tokens, settings.batch_size)

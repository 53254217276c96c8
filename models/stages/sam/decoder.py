"""SAM's mask decoder for many points of one image. transformers' own one copies the image's features for each point.

Three things are computed in another order, and the results are the same but for rounding:

- What all points have in common is computed once: the features are not copied before the first layer of the decoder,
  where three of the four products with them do not depend on the point.
- The estimates come first: masks are made for those points only that have an estimate above the threshold.
- The upscaling makes 2×2 positions of each one, twice. Its transposed convolutions do not overlap, so they are linear
  layers, and nothing but the final logits is put into the order of the image's rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.devices import compile_on_gpu

FOUR = 4  # positions that a transposed convolution with a kernel and a stride of 2 makes of one: 2 rows × 2 columns


class ImageFeatures(NamedTuple):
    """What the decoder reads of one image. maps: (1, channels, h, w); fine: added in the two steps of upscaling, for
    each of the h * w positions, (1, h * w, 4, channels) and (1, h * w, 4, 4, channels). SAM has none: then they are 0.
    """

    maps: Tensor
    fine: tuple[Tensor | float, Tensor | float]


class PointDecoder(nn.Module):
    """The decoder of a model of `SamModel` or `Sam2Model`, in its weights and its precision.

    The model's first layer is changed in place: it also takes features that are not copied for each point.
    """

    @torch.no_grad()
    def __init__(self, model: Any) -> None:
        super().__init__()
        decoder = model.mask_decoder
        self._prompts, self._decoder = model.prompt_encoder, decoder
        first = decoder.transformer.layers[0]
        for name in ("cross_attn_token_to_image", "cross_attn_image_to_token"):
            if not isinstance(getattr(first, name), _SharingAttention):
                setattr(first, name, _SharingAttention(getattr(first, name)))
        tokens = [getattr(decoder, name, None) for name in ("obj_score_token", "iou_token", "mask_tokens")]
        self._tokens = torch.cat([token.weight for token in tokens if token is not None])
        self._estimate = len(self._tokens) - decoder.num_mask_tokens - 1  # the place of the token of estimates
        self._positions = model.get_image_wide_positional_embeddings().to(self._tokens.dtype)
        self.estimating = decoder.iou_prediction_head
        self.upscaling = Upscaling(decoder, tuple(self._positions.shape[2:]))

    @staticmethod
    def features(maps: Any, index: int) -> ImageFeatures:
        """Those of one image of a batch. maps: of `get_image_embeddings`, one tensor of SAM, several of SAM 2."""
        if isinstance(maps, Tensor):
            return ImageFeatures(maps[index : index + 1], (0.0, 0.0))
        *fine, coarse = (level[index : index + 1] for level in maps)
        # the finest comes first, and is added last
        first, second = (_by_position(level, times) for level, times in zip(fine[::-1], (1, 2), strict=True))
        return ImageFeatures(coarse, (first, second))

    def compiled_on_gpu(self) -> bool:
        """Compile to fused kernels if there is a GPU, and say whether there is one; see `compile_on_gpu`."""
        if not compile_on_gpu(self._decoder.transformer):
            return False
        return compile_on_gpu(self.upscaling, varies=True)

    @torch.inference_mode()
    def warm_up(self, features: ImageFeatures) -> None:
        """Upscale for one point and for two: any number may be found, and the compiler treats 1 apart."""
        keys = features.maps.flatten(2).transpose(1, 2)
        words = self._tokens[None, -len(self.upscaling.heads) :]
        for count in (1, 2):
            self.upscaling(keys.repeat(count, 1, 1), words.repeat(count, 1, 1), *features.fine)

    def forward(self, features: ImageFeatures, points: Tensor, least: float) -> tuple[Tensor, Tensor]:
        """Masks with an estimate above `least`, or all if that is 0. points: (N, 2), x and y in pixels of the input.

        Returns logits (M, 4 * h, 4 * w) and estimates (M,) in float32: the second to fourth mask of each point, in the
        points' order.
        """
        tokens, keys = self._attended(features.maps, points)
        estimates = self.estimating(tokens[:, self._estimate])[:, 1:].float()
        chosen = estimates > least if least > 0 else torch.ones_like(estimates, dtype=torch.bool)
        # of the points without a mask nothing more is computed
        some = chosen.any(dim=1)
        if not some.any():
            height, width = features.maps.shape[2:]
            return keys.new_empty(0, FOUR * height, FOUR * width), estimates[chosen]
        words = tokens[some, self._estimate + 2 : self._estimate + 2 + estimates.shape[1]]
        logits = self.upscaling(keys[some], words, *features.fine)
        return logits[chosen[some]], estimates[chosen]

    def _attended(self, maps: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, tokens, channels) and positions of the image (N, h * w, channels) that have seen each other."""
        labels = torch.ones(1, len(points), 1, dtype=torch.int64, device=points.device)
        sparse, dense = self._prompts(points[None, :, None], labels, None, None)
        own = self._tokens.expand(1, len(points), -1, -1)
        tokens, keys = self._decoder.transformer(
            point_embeddings=torch.cat([own, sparse], dim=2).to(self._tokens.dtype),
            image_embeddings=maps + dense,
            image_positional_embeddings=self._positions,
            attention_similarity=None,
        )
        return tokens[0], keys[0]


class Upscaling(nn.Module):
    """From the positions of an image, and tokens of masks, to logits four times as high and wide.

    shape: h and w of the features.
    """

    def __init__(self, decoder: Any, shape: tuple[int, int]) -> None:
        super().__init__()
        self._shape = shape
        self._first, self._second = _linear(decoder.upscale_conv1), _linear(decoder.upscale_conv2)
        self._norm, self._activation = decoder.upscale_layer_norm, decoder.activation
        self.heads = decoder.output_hypernetworks_mlps[1:]

    def forward(self, keys: Tensor, words: Tensor, first: Tensor | float, second: Tensor | float) -> Tensor:
        """keys: (M, h * w, channels); words: (M, masks, channels); first, second: of `ImageFeatures.fine`.

        Returns logits (M, masks, 4 * h, 4 * w).
        """
        upscaled = self._first(keys).unflatten(-1, (FOUR, -1)) + first
        norm = self._norm  # along the channels, which are the last dimension here and not the first
        upscaled = functional.layer_norm(upscaled, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        upscaled = self._second(self._activation(upscaled)).unflatten(-1, (FOUR, -1)) + second
        upscaled = self._activation(upscaled)
        weights = torch.stack([head(words[:, place]) for place, head in enumerate(self.heads)], dim=1)
        logits = weights @ upscaled.flatten(1, 3).transpose(1, 2)
        # each position has 2 × 2 quarters, each of them 2 × 2 again: into the order of rows
        height, width = self._shape
        apart: Tensor = logits.unflatten(-1, (height, width, 2, 2, 2, 2)).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return apart.reshape(*logits.shape[:2], FOUR * height, FOUR * width)


class _SharingAttention(nn.Module):
    """An attention module of SAM or SAM 2 whose queries, or keys and values, may be the same for all points.

    They are (images, points, tokens, channels), and with 1 for the points what is the same for all of them.
    """

    def __init__(self, own: Any) -> None:
        super().__init__()
        self._own = own
        self._output = own.out_proj if hasattr(own, "out_proj") else own.o_proj

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **unused: Any) -> tuple[Tensor, None]:
        own = self._own
        asked, keys, values = (
            project(given).flatten(0, 1).unflatten(-1, (own.num_attention_heads, -1)).transpose(1, 2)
            for project, given in ((own.q_proj, query), (own.k_proj, key), (own.v_proj, value))
        )
        # an expanded tensor takes no memory, and torch's fused kernels read it as it is
        count = max(len(asked), len(keys))
        asked, keys, values = (one.expand(count, -1, -1, -1) for one in (asked, keys, values))
        answer = functional.scaled_dot_product_attention(asked, keys, values, scale=own.scaling)
        leading = query.shape[:2] if query.shape[0] * query.shape[1] == count else key.shape[:2]
        return self._output(answer.transpose(1, 2).flatten(2)).unflatten(0, leading), None


def _linear(convolution: nn.ConvTranspose2d) -> nn.Linear:
    """A transposed convolution with a kernel and a stride of 2 as a linear layer: channels of each of 4 positions."""
    weight, bias = convolution.weight, convolution.bias
    if bias is None or {*weight.shape[2:], *convolution.stride} != {2}:
        raise ValueError("an upscaling of SAM's decoder has no bias, or another kernel or stride than 2")
    linear = nn.Linear(weight.shape[0], FOUR * weight.shape[1], device="meta")
    linear.weight = nn.Parameter(weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), requires_grad=False)
    linear.bias = nn.Parameter(bias.repeat(FOUR), requires_grad=False)
    return linear


def _by_position(level: Tensor, times: int) -> Tensor:
    """A map (1, channels, H, W) in the order of `Upscaling`: by position, then by quarter, `times` times."""
    _, channels, height, width = level.shape
    for _ in range(times):
        height, width = height // 2, width // 2
    rows = level.reshape(channels, height, *[2] * times, width, *[2] * times)
    rows_first = [1, 2 + times]  # then the halves of rows and columns, pair by pair
    pairs = [axis for step in range(times) for axis in (2 + step, 3 + times + step)]
    return rows.permute(*rows_first, *pairs, 0).reshape(1, height * width, *[FOUR] * times, channels)

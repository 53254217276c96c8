"""EfficientNet-Lite2, with the names of the package efficientnet-lite-pytorch, whose weights it loads as they are.

The architecture is that of TensorFlow's model zoo ("Higher accuracy on vision models with EfficientNet-Lite", 2020):
EfficientNet (Tan and Le, arXiv 1905.11946) without squeeze-and-excitation, with ReLU6, and with a stem and a head of
fixed sizes. A test compares it with timm's. timm itself would be imported for longer than this network is loaded.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

STEM, HEAD, CLASSES = 32, 1280, 1000
EPSILON = 1e-3  # of batch normalisation, as in TensorFlow


class _Stage(NamedTuple):
    """Blocks of one size: how many, their kernel, the stride of the first, how they widen, and the channels after."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Lite2 has 1.1 times the channels of Lite0, rounded to 8, and 1.2 times its blocks but in the first and last stage
STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(3, 3, 2, 6, 24),
    _Stage(3, 5, 2, 6, 48),
    _Stage(4, 3, 2, 6, 88),
    _Stage(4, 5, 1, 6, 120),
    _Stage(5, 5, 2, 6, 208),
    _Stage(1, 3, 1, 6, 352),
)


class _Convolution(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: with a stride of 2, more at the right and the bottom."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, before, height, width) to (N, after, height / stride, width / stride), rounded up."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        down, right = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in pixels.shape[2:])
        padded = functional.pad(pixels, (right // 2, right - right // 2, down // 2, down - down // 2))
        return super().forward(padded)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class _Block(nn.Module):
    """Widens the channels (if expansion is not 1), convolves each by itself, and narrows them."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = _Convolution(before, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = _Convolution(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = _Convolution(wide, after, 1), _norm(after)
        self.widens, self.adds = expansion > 1, stride == 1 and before == after

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, before, height, width) to (N, after, height / stride, width / stride)."""
        wide = functional.relu6(self._bn0(self._expand_conv(pixels))) if self.widens else pixels
        wide = functional.relu6(self._bn1(self._depthwise_conv(wide)))
        narrow: Tensor = self._bn2(self._project_conv(wide))
        return narrow + pixels if self.adds else narrow


class EfficientNetLite2(nn.Module):
    """Logits of the classes (N, 1000) for pixels (N, 3, height, width) from -1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _Convolution(3, STEM, 3, 2), _norm(STEM)
        blocks, before = [], STEM
        for count, kernel, stride, expansion, after in STAGES:
            for number in range(count):
                blocks.append(_Block(before, after, kernel, 1 if number else stride, expansion))
                before = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _Convolution(before, HEAD, 1), _norm(HEAD)
        self._fc = nn.Linear(HEAD, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self._fc(self.vectors(pixels))
        return logits

    def vectors(self, pixels: Tensor) -> Tensor:
        """What the classes are computed from (N, 1280)."""
        found = functional.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks:
            found = block(found)
        return functional.relu6(self._bn1(self._conv_head(found))).mean((2, 3))

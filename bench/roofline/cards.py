"""The peaks of some cards, as their makers publish them: dense bfloat16 products, and the memory's bandwidth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """flops: floating point operations a second, dense bfloat16 with float32 sums; bandwidth: bytes a second.

    source: the document with both numbers. Makers print products with structured sparsity too, which are twice these.
    """

    name: str
    flops: float
    bandwidth: float
    source: str


CARDS = {
    "h200": Card("H200 SXM", 989e12, 4.8e12, "NVIDIA H200 Tensor Core GPU datasheet, 2024"),
    "h100": Card("H100 SXM", 989e12, 3.35e12, "NVIDIA H100 Tensor Core GPU datasheet, 2023"),
    "a100": Card("A100 SXM 80 GB", 312e12, 2.039e12, "NVIDIA A100 Tensor Core GPU datasheet, 2021"),
    "l4": Card("L4", 121e12, 0.3e12, "NVIDIA L4 Tensor Core GPU datasheet, 2023"),
    "4090": Card("GeForce RTX 4090", 165.2e12, 1.008e12, "NVIDIA Ada GPU architecture whitepaper, 2022"),
}

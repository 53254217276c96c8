"""Several processes that train one model: each draws samples of its own, gradients are averaged.

    python -m torch.distributed.run --nproc-per-node 2 -m samples.training.captioner ...

A process that was started alone is a team of one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn


class Team:
    """The processes of this training; joins them when it is made."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1:
            dist.init_process_group("gloo")

    def follow(self, elapsed: float, stopped: bool) -> tuple[float, bool]:
        """The first process's clock and its wish to stop, so that all take the same number of steps."""
        if self.size == 1:
            return elapsed, stopped
        clock = torch.tensor([elapsed, float(stopped)], dtype=torch.float64)
        dist.broadcast(clock, src=0)
        return float(clock[0]), bool(clock[1])

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by the team's mean."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

"""The processes that train together: torchrun or `accelerate launch` starts one for each GPU."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState

from training.config import ConfigError


def on_cpu() -> bool:
    """Whether this machine has no accelerator, so that a training computes on the CPU."""
    return not torch.accelerator.is_available()


def joined_processes() -> PartialState:
    """Join the processes that were started with this one, and return their state.

    Without a GPU they join through gloo, which accelerate does only if it is told that the CPU is meant. Raises
    ConfigError if they did not join: each would train alone and overwrite the files of the others.
    """
    state = PartialState(cpu=on_cpu())
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != started:
        raise ConfigError(f"{started} processes were started, but {state.num_processes} of them train together")
    return state

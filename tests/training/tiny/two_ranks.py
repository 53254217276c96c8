"""Two processes that train together on a CPU, for tests: `python -m tests.training.tiny.two_ranks FOLDER START`.

Each has the variables that torchrun, which accelerate launches, sets; accelerate itself starts several processes on
CPUs by MPI alone. The second is a fork, so that packages are imported once. They train the tiny model with DDP. Then
they shard it as training/configs/accelerate/fsdp2.yaml says, by accelerate's own choice of layers, and compare steps
with those of the whole model. accelerate itself turns FSDP2 on for GPUs only.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from tests.training.tiny.squares import tiny_mixture
from tests.training.tiny.tiny_training import tiny_config
from training.config import Config
from training.train import load_model, train


def two_ranks_config(folder: Path, start: Path, batch_size: int) -> Config:
    """Three steps whose loss does not depend on how a batch is divided: the tower's batch statistics are frozen."""
    optimizer = {"learning_rate": 5e-3, "batch_size": batch_size, "accumulation": 2}
    model = {"path": str(start), "freeze": ["vision_tower"]}
    return tiny_config(folder, start, model=model, optimizer=optimizer, steps=3, report_to=())


def sharded_losses(start: Path, folder: Path) -> dict[str, Any]:
    """The losses of three steps of AdamW, whole and sharded over the processes, and the number of sharded layers."""
    whole, _ = load_model(two_ranks_config(folder, start, 1))
    whole.requires_grad_(True).eval()
    sharded = copy.deepcopy(whole)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP")
    plugin.set_auto_wrap_policy(sharded)
    policy, mesh = fsdp2_prepare_auto_wrap_policy(plugin, sharded), init_device_mesh("cpu", (2,))
    assert policy is not None
    # layers first, the rest last, as accelerate does
    layers = [module for module in sharded.modules() if policy(module)]
    for layer in [*layers, sharded]:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    assert isinstance(sharded, FSDPModule)
    losses = [_losses(model) for model in (whole, sharded)]
    return {"layers": len(layers), "whole": losses[0], "sharded": losses[1]}


def _losses(model: Any) -> list[float]:
    # both processes compute the same batch, so that the mean of their gradients is that of one
    ids = torch.randint(5, 250, (2, 12), generator=torch.Generator().manual_seed(0))
    optimizer, found = torch.optim.AdamW(model.parameters(), 1e-2), []
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss))
    return found


def main() -> None:
    """Train with DDP, then shard, and write FOLDER/sharded.json. MASTER_PORT is a free port."""
    folder, start = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    second = os.fork()
    rank = "0" if second else "1"
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    train(two_ranks_config(folder, start, 2), tiny_mixture())
    found = sharded_losses(start, folder)
    distributed.destroy_process_group()
    if second:
        (folder / "sharded.json").write_text(json.dumps(found))
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]))


if __name__ == "__main__":
    main()

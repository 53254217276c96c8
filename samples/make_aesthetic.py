"""Make `weights/aesthetic/heads.safetensors` again: `python -m samples.make_aesthetic V1 V2`.

V1 and V2: clones of github.com/LAION-AI/aesthetic-predictor (at 6d122ad) and
github.com/christophschuhmann/improved-aesthetic-predictor (at 6934dd8).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from models.stages.features.aesthetic import HEADS, TOWERS

V2 = "sac+logos+ava1-l14-linearMSE.pth"
RATINGS = 10
Vector = np.typing.NDArray[Any]


def product(layers: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight (1, width) and the bias (1,) of linear layers that are applied one after the other."""
    names = sorted({name.rpartition(".")[0] for name in layers}, key=lambda name: int(name.rpartition(".")[2] or 0))
    weight, bias = layers[f"{names[0]}.weight"].double(), layers[f"{names[0]}.bias"].double()
    for name in names[1:]:
        each = layers[f"{name}.weight"].double()
        weight, bias = each @ weight, each @ bias + layers[f"{name}.bias"].double()
    return weight, bias


def tensors(first: Path, second: Path) -> dict[str, Vector]:
    """What the file has. first, second: folders of the two repositories. Raises OSError."""
    files = {f"v1.{tower}": first / f"sa_0_4_{tower}_linear.pth" for tower in TOWERS.values()}
    files["v2.vit_l_14"] = second / V2
    found: dict[str, Vector] = {}
    for name, path in files.items():
        layers = torch.load(path, map_location="cpu", weights_only=True)
        # one layer has no prefix
        named = {key if "." in key else f"0.{key}": layer for key, layer in layers.items()}
        weight, bias = product(named)
        found[f"{name}.weight"], found[f"{name}.bias"] = weight[0].float().numpy(), bias.float().numpy()
    for tower in TOWERS.values():
        rows = [np.load(first / f"{tower}_embeddings" / f"rating{rating}.npy").ravel() for rating in range(RATINGS)]
        found[f"rated.{tower}"] = np.stack(rows).astype(np.float16)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("v1", type=Path)
    parser.add_argument("v2", type=Path)
    parser.add_argument("--out", type=Path, default=HEADS, metavar="FILE")
    given = parser.parse_args()
    save_file(tensors(given.v1, given.v2), given.out)
    given.out.chmod(0o644)  # safetensors writes it for its owner alone
    print(given.out)


if __name__ == "__main__":
    main()

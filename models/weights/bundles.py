"""Write the manifest of a folder in `weights/`: `python -m models.weights.bundles weights/captioner`.

It prints the revision that the profile must say.
"""

from __future__ import annotations

import sys
from pathlib import Path

from models.weights.cache import write_manifest
from models.weights.hashes import sha256_of


def main(folders: list[str]) -> int:
    """Write the manifests. Each folder has one safetensors file, whose SHA-256 is the revision."""
    for folder in map(Path, folders):
        (weights,) = folder.glob("*.safetensors")
        revision = sha256_of(weights)
        write_manifest(folder, f"bundled:{folder.name}", revision, "this repository")
        print(f'[stages.{folder.name}] revision = "{revision}"')
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

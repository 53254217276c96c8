"""Embeddings of pictures in files, such as those of benchmarks, by the stage that computes those of rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from models.building import build_stage, load_stages
from models.items import Failure
from models.weights.cache import fetched_for
from strata.core import Profile
from strata.errors import InvalidInput
from strata.images import ImageError, decode, shrunk
from strata.snapshots import Benchmarks, RowArray

AT_ONCE = 16  # pictures in memory


def embed_pictures(benchmarks: Benchmarks, profile: Profile, max_pixels: int) -> Benchmarks:
    """The benchmarks, whose names are the paths of pictures, with an embedding of each.

    A picture whose embedding cannot be computed has zeros, and is compared by its hashes alone. Raises InvalidInput for
    a profile without the stage, and the errors of loading stages and of `Stage.run`.
    """
    way = profile.feature_ways().get("embedding")
    if way is None:
        raise InvalidInput(f"the profile {profile.name!r} has no stage 'embedding'")
    stage = build_stage("embedding", profile.stages["embedding"])
    with fetched_for(profile.name):
        load_stages({"embedding": stage})
    found: list[np.typing.NDArray[np.float16] | None] = []
    for start in range(0, len(benchmarks.names), AT_ONCE):
        images: list[Image.Image | None] = []
        for name in benchmarks.names[start : start + AT_ONCE]:
            try:
                images.append(shrunk(decode(Path(name).read_bytes(), max_pixels)))
            except ImageError:
                images.append(None)
        results = iter(stage.run([image for image in images if image is not None]))
        made = [None if image is None else next(results) for image in images]
        found += [None if one is None or isinstance(one, Failure) else one["embedding"] for one in made]
    width = max((len(vector) for vector in found if vector is not None), default=0)
    vectors = np.array([np.zeros(width, np.float16) if vector is None else vector for vector in found], np.float16)
    return replace(benchmarks, hashes=replace(benchmarks.hashes, vectors=RowArray(vectors)), way=way)

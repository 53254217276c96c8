"""The copies that the measurement of duplicates plants are found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.curation.copies import Scenes, file_of
from samples.copies import KINDS
from strata.data.picture_hashes import hash_pictures
from strata.snapshots.duplicates.pictures import found_in, same_pictures

SCENES = 16


def test_planted_copies_are_one_with_their_scenes(tmp_path: Path) -> None:
    wanted = [(scene, kind, 7) for kind in ("", *KINDS) for scene in range(SCENES)]
    for number, one in enumerate(wanted):
        (tmp_path / f"{number:03d}.jpg").write_bytes(file_of(Scenes(2), one))
    found, refused = hash_pictures(sorted(tmp_path.iterdir()))
    assert not refused
    assert same_pictures(found.hashes, "cropped").tolist() == [scene for scene, _, _ in wanted]
    # the scenes of half of them are a benchmark
    half = SCENES // 2
    scenes = [number for number, (scene, kind, _) in enumerate(wanted) if not kind and scene < half]
    places = found_in(found.hashes, found.hashes.take(np.array(scenes)), "cropped").tolist()
    assert places == [scene if scene < half else -1 for scene, _, _ in wanted]

"""How many planted copies a selection finds, and how many other rows it takes for copies.

Recall of a kind: the share of its copies that are in one cluster with their original. Precision of a kind: of the
clusters with a copy of this kind, the share whose other rows are copies of the same scene. Precision of all: of the
rows that are left out, the share that are copies in one cluster with their original.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.curation.copies import KINDS, copies, encoded, plant, scene
from strata.core import Profile
from strata.data import PictureHasher, hash_pictures
from strata.snapshots import Benchmarks, OwnFiles, Selection, Snapshots
from strata.snapshots.duplicates.pictures import MOST_DIFFERENT
from strata.store import Store
from workers.features import FeatureRun

Figures = dict[str, float]
BENCHMARK_SCENES = 500_000  # the first number of a scene that only benchmarks have


class Curation:
    """A store with scenes and copies of them. Every stage of the group `features` of the profile is computed."""

    def __init__(self, folder: Path, profile: Profile, scenes: int, each: int) -> None:
        self._folder, self._profile = folder, profile
        self._store = Store(str(folder / "store"))
        began = time.perf_counter()
        self._planted = plant(self._store, profile, folder, scenes, each)
        self.figures: Figures = {"planting, seconds": time.perf_counter() - began}
        run = FeatureRun(self._store, profile, (), 10**8)
        missing = run.missing(self._planted.parts)
        began = time.perf_counter()
        totals = run.run(missing)
        seconds = time.perf_counter() - began
        if any(totals.failed.values()):
            raise RuntimeError(f"features of {totals.failed} rows could not be computed")
        rows = len(self._planted.kinds)
        self.figures |= {"rows": rows, "features, seconds": seconds, "features, images/s": rows / seconds}

    def found(self, same: str, alike: float | None = None, bits: int = MOST_DIFFERENT) -> Figures:
        """Recall and precision of a selection of each image once."""
        name = f"{same}-{bits}-{alike or 0:.3f}".replace(".", "_")
        selection = Selection.model_validate({"unique": True, "same": same, "alike": alike, "bits": bits})
        hasher = PictureHasher(self._store, selection.same or "near", self._folder / "cache")
        began = time.perf_counter()
        made = Snapshots(self._store).create(
            name, self._planted.parts, selection, pictures=hasher.hashes, accept_shortfall=True
        )
        return {"seconds": time.perf_counter() - began, **self._judged(made.clusters().to_pylist())}

    def _judged(self, rows: list[dict[str, Any]]) -> Figures:
        size, kinds, of = self._profile.chunk_size, self._planted.kinds, self._planted.of
        members: dict[int, list[int]] = {}
        for row in rows:
            members.setdefault(row["cluster"], []).append(row["part"] * size + row["row"])
        right, wrong, found = Counter[str](), Counter[str](), Counter[str]()
        true_removed = removed = 0
        for places in members.values():
            scenes = {of[place] for place in places}
            for place in places:
                if kinds[place] and of[place] in places:
                    found[kinds[place]] += 1
            for kind in {kinds[place] for place in places} - {""}:
                (right if len(scenes) == 1 else wrong)[kind] += 1
            removed += len(places) - 1
            true_removed += len(places) - len(scenes)
        planted = Counter(kind for kind in kinds if kind)
        figures = {f"{kind}: recall": found[kind] / planted[kind] for kind in KINDS}
        for kind in KINDS:
            clusters = right[kind] + wrong[kind]
            figures[f"{kind}: precision"] = right[kind] / clusters if clusters else float("nan")
        return figures | {"all: precision": true_removed / removed if removed else float("nan"), "removed": removed}

    def decontaminated(self, same: str, each: int, bits: int) -> Figures:
        """Recall and precision of a selection without the pictures of a benchmark.

        Of each kind there are copies of `each` pictures of the store in the benchmark, and as many scenes beside them
        that the store has not. Recall is of the scenes of the store that are in the benchmark.
        """
        random = np.random.default_rng(1)
        scenes = self._planted.kinds.count("")
        chosen = random.permutation(scenes)[: each * len(KINDS)].reshape(len(KINDS), each)
        folder = self._folder / f"benchmark-{same}-{each}"
        folder.mkdir(exist_ok=True)
        for number, kind in enumerate(KINDS):
            for place, data in enumerate(copies(chosen[number].tolist(), kind, 100 + number)):
                (folder / f"{kind}-{place}.jpg").write_bytes(data)
        for place in range(each * len(KINDS)):
            (folder / f"other-{place}.jpg").write_bytes(encoded(scene(BENCHMARK_SCENES + place), 92))
        began = time.perf_counter()
        benchmarks, _ = hash_pictures(sorted(folder.iterdir()))
        hashed = time.perf_counter() - began
        out = self._left_out(same, bits, benchmarks)
        recall = {
            f"benchmark, {kind}: recall": len(out & set(chosen[number].tolist())) / each
            for number, kind in enumerate(KINDS)
        }
        # copies in the store of scenes that are in the benchmark are rightly left out too
        wanted = set(chosen.flatten().tolist())
        right = sum(self._planted.of[place] in wanted for place in out)
        return {"hashing, seconds": hashed, **recall, "benchmark: precision": right / len(out) if out else float("nan")}

    def _left_out(self, same: str, bits: int, benchmarks: Benchmarks) -> set[int]:
        """The rows that a selection without the pictures of the benchmark has not."""
        values = {"same": same, "bits": bits, "files": (("without", "0" * 64),)}
        selection = Selection.model_validate(values)
        hasher = PictureHasher(self._store, selection.same or "near", self._folder / "cache")
        own = OwnFiles(benchmarks=benchmarks, sha256s=(("without", "0" * 64),))
        made = Snapshots(self._store).create(
            f"without-{same}", self._planted.parts, selection, own=own, pictures=hasher.hashes, accept_shortfall=True
        )
        rows = made.rows()
        places = rows.column("part").to_numpy() * self._profile.chunk_size + rows.column("row").to_numpy()
        return set(range(len(self._planted.kinds))) - set(places.tolist())


def measure(profile: Profile, scenes: int, each: int, alike: list[float], bits: list[int]) -> dict[str, Figures]:
    """The figures of each way to compare pictures."""
    with tempfile.TemporaryDirectory(prefix="curation-") as folder:
        curation = Curation(Path(folder), profile, scenes, each)
        found = {"all": curation.figures}
        for same in ("pixels", "near", "mirrored"):
            found[same] = curation.found(same)
        for most in bits:
            found[f"cropped, {most} bits"] = curation.found("cropped", None, most)
        for least in alike:
            found[f"embedding {least}"] = curation.found("embedding", least)
        found[f"benchmark, {bits[-1]} bits"] = curation.decontaminated("cropped", each, bits[-1])
    found["all"] |= {"peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}
    return found

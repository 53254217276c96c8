"""How many planted copies a selection finds, and how many other rows it takes for copies.

Recall of a kind: the share of its copies that are in one cluster with their original. Precision of a kind: of the
clusters with a copy of this kind, the share whose other rows are copies of the same picture. Precision of all: of the
rows that are left out, the share that are copies in one cluster with their original.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.curation.copies import Pictures, chosen_of, files_of, plant
from samples.copies import KINDS
from strata.core import Profile
from strata.data import PictureHasher, hash_pictures
from strata.snapshots import OwnFiles, PictureHashes, Selection, Snapshots
from strata.store import Part, Store
from workers.features import FeatureRun

Figures = dict[str, float]
OTHERS = 500_000  # the first number of a scene that only benchmarks have
MAX_PIXELS = 10**8


@dataclass(frozen=True)
class Asked:
    """What is measured. originals: their number; each: copies of each kind; seed: of what is copied, and how."""

    pictures: Pictures
    originals: int
    each: int
    seed: int = 0


class Curation:
    """A store of a folder with pictures and copies of them, and the features that comparing them takes."""

    def __init__(self, folder: Path, profile: Profile, asked: Asked, stages: Sequence[str]) -> None:
        self._folder, self._profile, self._asked = folder, profile, asked
        folder.mkdir(parents=True, exist_ok=True)
        self._store = Store(str(folder / "store"))
        began = time.perf_counter()
        source = (asked.pictures, asked.originals)
        self._planted = plant(self._store, profile, folder, source, asked.each, asked.seed)
        self._parts = [Part.parse(path) for path in self._planted.parts]
        planted = time.perf_counter()
        processes = os.cpu_count() or 1
        with ProcessPoolExecutor(processes) as pool:
            shares = [self._parts[share::processes] for share in range(processes)]
            list(pool.map(_computed, *zip(*((self._store.uri, profile, stages, some) for some in shares), strict=True)))
        rows, seconds = len(self._planted.kinds), time.perf_counter() - planted
        self.figures: Figures = {"rows": rows, "planting, seconds": planted - began}
        self.figures |= {"features, seconds": seconds, "features, images/s": rows / seconds}

    def hashes(self) -> tuple[PictureHashes, list[int], list[str]]:
        """The hashes of all rows, what each is a copy of, and of which kind."""
        part, row = np.divmod(np.arange(len(self._planted.of), dtype=np.int32), self._profile.chunk_size)
        rows = pa.table({"part": part, "row": row})
        hasher = PictureHasher(self._store, "cropped", self._folder / "cache")
        return hasher.hashes(self._planted.parts, rows), self._planted.of, self._planted.kinds

    def found(self, same: str, alike: float | None = None) -> Figures:
        """Recall and precision of a selection of each image once."""
        selection = Selection.model_validate({"unique": True, "same": same, "alike": alike})
        _tell(f"--same {same}")
        began = time.perf_counter()
        made = self._made(same, selection, OwnFiles())
        return {"seconds": time.perf_counter() - began, **self._judged(made.clusters().to_pylist())}

    def _made(self, same: str, selection: Selection, own: OwnFiles) -> Any:
        snapshots, name = Snapshots(self._store), f"once-{time.time_ns()}"
        hasher = PictureHasher(self._store, selection.same or "near", self._folder / "cache")
        return snapshots.create(
            name, self._parts, selection, own=own, pictures=hasher.hashes, accept_shortfall=True, tenant="bench"
        )

    def _judged(self, rows: list[dict[str, Any]]) -> Figures:
        size, kinds, of = self._profile.chunk_size, self._planted.kinds, self._planted.of
        members: dict[int, list[int]] = {}
        for row in rows:
            members.setdefault(row["cluster"], []).append(row["part"] * size + row["row"])
        right, wrong, found = Counter[str](), Counter[str](), Counter[str]()
        true_removed = removed = 0
        for places in members.values():
            originals = {of[place] for place in places}
            for place in places:
                if kinds[place] and of[place] in places:
                    found[kinds[place]] += 1
            for kind in {kinds[place] for place in places} - {""}:
                (right if len(originals) == 1 else wrong)[kind] += 1
            removed += len(places) - 1
            true_removed += len(places) - len(originals)
        planted = Counter(kind for kind in kinds if kind)
        figures: Figures = {}
        for kind in KINDS:
            clusters = right[kind] + wrong[kind]
            figures[f"{kind}: recall"] = found[kind] / planted[kind]
            figures[f"{kind}: precision"] = right[kind] / clusters if clusters else float("nan")
        return figures | {"all: precision": true_removed / removed if removed else float("nan"), "removed": removed}

    def decontaminated(self, same: str, each: int) -> Figures:
        """Recall and precision of a selection without the pictures of a benchmark, made of scenes.

        Of each kind there are copies of `each` pictures of the store in the benchmark, and as many scenes beside them
        that the store has not. Recall is of the pictures of the store that are in the benchmark.
        """
        folder = self._folder / f"benchmark-{each}"
        chosen = chosen_of(self._asked.originals, each, self._asked.seed + 1)
        wanted = [(number, kind, 500 + place) for place, kind in enumerate(KINDS) for number in chosen[kind]]
        wanted += [(OTHERS + place, "", 0) for place in range(each * len(KINDS))]
        if not folder.is_dir():
            folder.mkdir()
            for place, data in enumerate(files_of(self._asked.pictures, wanted)):
                (folder / f"{place:06d}.jpg").write_bytes(data)
        began = time.perf_counter()
        benchmarks, _ = hash_pictures(sorted(folder.iterdir()))
        hashed = time.perf_counter()
        _tell(f"--without {len(benchmarks.names):,} pictures, --same {same}")
        files = (("without", "0" * 64),)
        selection = Selection.model_validate({"same": same, "files": files})
        rows = self._made(same, selection, OwnFiles(benchmarks=benchmarks, sha256s=files)).rows()
        selected = time.perf_counter()
        places = rows.column("part").to_numpy() * self._profile.chunk_size + rows.column("row").to_numpy()
        out = set(range(len(self._planted.kinds))) - set(places.tolist())
        figures = {f"{kind}: recall": len(out & set(some)) / each for kind, some in chosen.items()}
        # copies in the store of pictures that are in the benchmark are rightly left out too
        inside = {number for some in chosen.values() for number in some}
        right = sum(self._planted.of[place] in inside for place in out)
        precision = right / len(out) if out else float("nan")
        return {
            "hashing, seconds": hashed - began,
            "seconds": selected - hashed,
            **figures,
            "all: precision": precision,
            "left out": len(out),
        }


def _computed(store: str, profile: Profile, stages: Sequence[str], parts: list[Part]) -> None:
    """Compute what is missing beside some parts, in a process of its own."""
    run = FeatureRun(Store(store), profile, stages, MAX_PIXELS)
    missing = run.missing(parts)
    for start in range(0, len(missing), 200):
        _tell(f"features: {start:,} of {len(missing):,} parts")
        totals = run.run(missing[start : start + 200])
        if any(totals.failed.values()) or totals.unread:
            raise RuntimeError(f"features of {totals.failed} rows could not be computed: {totals.unread}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(
    folder: Path, profile: Profile, asked: Asked, alike: Sequence[float], benchmark: int = 0
) -> dict[str, Figures]:
    """The figures of each way to compare pictures. benchmark: copies of each kind in a benchmark of scenes."""
    curation = Curation(folder, profile, asked, ["hash", "embedding"] if alike else ["hash"])
    found = {"all": curation.figures}
    for same in ("pixels", "near", "mirrored", "cropped"):
        found[same] = curation.found(same)
    for least in alike:
        found[f"embedding {least}"] = curation.found("embedding", least)
    if benchmark:
        found["benchmark"] = curation.decontaminated("cropped", benchmark)
    found["all"] |= {"peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}
    return found


def mean_of(rounds: Sequence[dict[str, Figures]]) -> dict[str, Figures]:
    """The mean of each figure."""
    return {
        name: {figure: float(np.mean([one[name][figure] for one in rounds])) for figure in rounds[0][name]}
        for name in rounds[0]
    }

"""The texts of an ablation: Strata describes its images once, and snapshots select from the rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from samples.service import running_service
from strata.data import PictureHasher
from strata.snapshots import Selection, Snapshots
from strata.store import PartsOf, Store

ALL = "all"  # the snapshot with all rows


def described(work: Path, write: Callable[[Path], object], selections: Mapping[str, Selection]) -> Store:
    """The store of described images, with a snapshot for each of some selections, one of which is ALL.

    write: writes shards to a folder. What is there is not made again. Raises StrataError.
    """
    # a rename makes the folder appear only when it is complete
    shards = work / "shards"
    if not shards.exists():
        temporary = work / "shards.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        write(temporary)
        temporary.rename(shards)
    store = Store(str(work / "service" / "data" / "store"))
    snapshots = Snapshots(store)
    if ALL not in snapshots.names():
        # describe them with a service of our own
        with running_service(work / "service", shards, profile="demo") as client:
            job = client.submit([str(path) for path in sorted(shards.glob("*.tar"))], metadata={"from": "ablation"})
            client.wait(job.id)
        snapshots.create(ALL, PartsOf(store).sources([job.id]), selections[ALL], [job.id])
    # the others select from the parts of the first
    everything = snapshots.open(ALL)
    for name in [name for name in selections if name not in snapshots.names()]:
        selection = selections[name]
        pictures = PictureHasher(store, selection.same, work / "pictures").hashes if selection.same else None
        snapshots.create(name, everything.parts, selection, everything.manifest.sources, pictures=pictures)
    return store

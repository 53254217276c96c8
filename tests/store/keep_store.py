"""Make a small store with the code as it is: parts, jobs and a snapshot that later versions must still read.

    python -m tests.store.keep_store tests/data_files/store-schema-N

Six scenes of `samples/shards` and one damaged JPEG, described twice: with the demo's models, and with the demo's
vision models and a chat server that charges. Both jobs are retried once, so that a second attempt's parts are there.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import threading
from pathlib import Path

from bench.fakes.scripted_server import good, scripted
from models.prompts import FOLDER
from models.weights.hashes import sha256_of
from strata.core.profiles import Profile, StageSettings, load_profile
from strata.core.requests import JobRequest
from strata.core.settings import Settings
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from strata.queue.embedded import EmbeddedServer
from strata.queue.queue import Queue
from strata.snapshots.selection import Selection
from strata.snapshots.selection.axes import Axis
from strata.snapshots.snapshots import Snapshots
from strata.store.parts import PartsOf
from strata.store.store import Store
from tests.checkout import CHECKOUT
from tests.fakes import wait_for_end
from workers.engines.groups import real_group
from workers.engines.queue import QueueClaims
from workers.indexer import Indexer
from workers.leases import Leases
from workers.profile_versions import ProfileVersions
from workers.runner import Runner

SHARD, MODIFIED = "shard.tar", 1_700_000_000  # a relative URI: the identity is the same wherever the store is copied
IMAGES, CHUNK, DAMAGED = 6, 4, "000000002"


def make_shard(path: Path) -> None:
    """The first scenes of the sample shard, the JPEG of one of them cut off; its mtime is MODIFIED."""
    with tarfile.open(CHECKOUT / "samples" / "shards" / "00000.tar") as source, tarfile.open(path, "w") as tar:
        for member in source:
            file = source.extractfile(member)
            key, _, extension = member.name.partition(".")
            if file is None or extension == "json" or int(key) >= IMAGES:
                continue
            data = file.read()
            if member.name == f"{DAMAGED}.jpg":
                data = data[: len(data) // 2]
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    os.utime(path, (MODIFIED, MODIFIED))


def kept_profiles(url: str) -> dict[str, Profile]:
    """The demo in chunks of four images, and the same with a composer behind a chat server that charges."""
    demo = load_profile("demo", CHECKOUT / "models" / "profiles").model_copy(
        update={"name": "kept-demo", "chunk_size": CHUNK}
    )
    parameters = {
        "served_model": "scripted",
        "prompt": "full",
        "prompt_sha256": sha256_of(FOLDER / "full.toml"),
        "price_per_million_prompt_tokens": 1.0,
        "price_per_million_completion_tokens": 4.0,
    }
    composer = StageSettings(backend="openai", model=f"server:{url}", revision="1", parameters=parameters)
    paid = demo.model_copy(update={"name": "kept-paid", "stages": {**demo.stages, "composer": composer}})
    return {profile.name: profile for profile in (demo, paid)}


def describe(jobs: Jobs, profiles: dict[str, Profile]) -> list[JobRequest]:
    """Run the shard through both profiles with real workers, and retry each job once."""
    settings, stop = Settings(), threading.Event()
    with Leases(jobs.queue, "keeper", ["index", "vision", "llm"], 15.0) as leases:
        versions = ProfileVersions(profiles.__getitem__)
        groups = [real_group(name, jobs.store, versions, settings) for name in ("vision", "llm")]
        loops = [Indexer(jobs, leases).run, lambda stop: Scheduler(jobs.queue, jobs.store, 100).run(stop, 0.02)]
        loops += [Runner(group, QueueClaims(group.name, jobs, leases, versions), CHUNK).run for group in groups]
        threads = [threading.Thread(target=loop, args=(stop,)) for loop in loops]
        for thread in threads:
            thread.start()
        requests = []
        try:
            for profile in profiles.values():
                request = jobs.new.create("batch", [SHARD], profile, "lo", {"kept": profile.name})
                wait_for_end(jobs, request.id, 300)
                jobs.retry(request.id)
                wait_for_end(jobs, request.id, 300)
                requests.append(jobs.request(request.id))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    return requests


def main() -> None:
    """Make the store in the folder that is named."""
    folder = Path(sys.argv[1]).resolve()
    shutil.rmtree(folder / "store", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # the shard's URI is relative
    make_shard(folder / SHARD)
    store = Store("store")
    with (
        EmbeddedServer(folder / "valkey") as server,
        scripted(lambda body: good("A red car stands on a green field. It is small.")) as chat,
    ):
        requests = describe(Jobs(Queue(server.url), store), kept_profiles(chat.url))
        parts = PartsOf(store).sources([request.id for request in requests[:1]])
        selection = Selection(method="balanced", count=3, seed=7, where="objects >= 0", axes=(Axis.parse("objects"),))
        Snapshots(store).create("kept", parts, selection, [requests[0].id])
    shutil.rmtree(folder / "valkey")


if __name__ == "__main__":
    main()

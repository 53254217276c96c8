"""`python -m bench.engines`: images/s of `strata run` with each engine, over the service's, in one run.

The stages need a fixed time an image and no processor (`bench.fakes.worker`); one worker, thread or actor a group. A
rate is that of the parts of `llm` between the first and the last one, so that nobody's start counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from bench.inputs.tiny_shards import write_shard
from bench.processes import BENCH_PROFILES, CHECKOUT, PLUG_INS, Fleet, python_path
from strata.client import Client
from strata.core import JobView, Settings, load_profile
from workers.engines.job import Asked
from workers.engines.options import Engine, Options, Pool
from workers.engines.start import computed, opened

PROFILE, CHUNK = "waiting", 32


def rate(store: Path, images: int) -> float:
    """The images/s of the parts of `llm` after the first one."""
    times = sorted(part.stat().st_mtime for part in store.glob("parts/llm/**/*.parquet"))
    return (images - CHUNK) / (times[-1] - times[0])


def service(folder: Path, shards: list[str], images: int, seconds: float) -> float:
    """The rate of a service with one worker for each group."""
    workers = [["--groups", groups, "--seconds", str(seconds)] for groups in ("index,vision", "llm")]
    with Fleet(folder, str(Path(shards[0]).parent), workers, {"STRATA_PROFILE": PROFILE}) as fleet:
        fleet.wait_ready()
        with Client(fleet.url) as client:
            check(client.wait(client.submit(shards, profile=PROFILE).id, poll=0.2), images)
        return rate(Path(fleet.store), images)


def run(engine: Engine, folder: Path, shards: list[str], images: int, seconds: float) -> float:
    """The rate of `strata run` with one thread or actor for each group."""
    given = {"data_dir": folder, "store": str(folder / "store"), "profiles_dir": BENCH_PROFILES, "profile": PROFILE}
    settings, pool = Settings.model_validate(given), Pool(1, 1, 0.5, 0.0)
    groups = ("bench.fakes.worker:fake_group", {"seconds": seconds})
    options = Options(engine, pools={"vision": pool, "llm": pool}, groups=groups)
    job = opened(settings, Asked(shards, load_profile(PROFILE, BENCH_PROFILES), {}, None), options)
    check(computed(job, settings, options), images)
    return rate(folder / "store", images)


def check(view: JobView, images: int) -> None:
    """Raise RuntimeError unless a job has described all images."""
    if view.request_counts.succeeded != images:
        raise RuntimeError(f"the job ended otherwise than it should: {view.model_dump_json()}")


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3200)
    parser.add_argument("--seconds", type=float, default=0.01, help="what an image costs in each group")
    parser.add_argument("--times", type=int, default=3, help="repetitions, of which the median is told")
    options = parser.parse_args()
    sys.path.append(str(PLUG_INS))  # the back ends of the profile
    os.environ["PYTHONPATH"] = python_path(CHECKOUT)  # of the processes that Ray starts
    rates: dict[str, list[float]] = {"service": [], "local": [], "ray": []}
    with tempfile.TemporaryDirectory() as name:
        shard = Path(name) / "shards" / "00000.tar"
        write_shard(shard, 0, options.images)
        for number in range(options.times):
            folder, shards = Path(name) / str(number), [str(shard)]
            rates["service"].append(service(folder / "service", shards, options.images, options.seconds))
            for engine in ("local", "ray"):
                here = folder / engine
                rates[engine].append(run(engine, here, shards, options.images, options.seconds))
            print({engine: found[-1] for engine, found in rates.items()}, flush=True)
    medians = {engine: statistics.median(found) for engine, found in rates.items()}
    over = {f"{engine} over service": rate / medians["service"] for engine, rate in medians.items()}
    print(json.dumps({"images/s": medians, **over, "load": os.getloadavg()}, indent=1))


if __name__ == "__main__":
    main()

"""`python -m bench.hostile.run --seed 1`: hostile input against a running service with workers, from a seed.

Thrown at it are damaged and crafted tars as shards, damaged images and bombs by POST and through the workers, patterns
and ids, requests that schemathesis makes with and without the key, deep and wide bodies, half and slow connections,
requests of a page of another site, flipped bits in parts, and parts that are broken in every way.

The last line is `hangs 0 crashes 0 undocumented 5xx 0 of T tars, I images, A API cases, P patterns; peak API M MiB
above idle, worker W MiB`. A hang is a response, or a job's next row, that comes after its deadline. A crash is an end
of a process, or a traceback, in the service's log. Documented is 503 with its problem. The line before it tells how
much was wrong: whole samples that were lost, counts that do not add up, damage that was not noticed, secrets that were
told. The exit code is 0 if all of these are 0, and if the memory stays within its bounds.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.hostile.api_cases import attack_api
from bench.hostile.connections import attack_connections
from bench.hostile.jobs import attack_lists, attack_tars, attack_workers, finished, rows_of, submit, write_tar
from bench.hostile.parts import attack_parts
from bench.hostile.requests import attack_as_browser, attack_bombs, attack_ids, attack_patterns
from bench.hostile.service import AttackedService
from bench.hostile.tally import Tally
from bench.hostile.uploads import attack_uploads
from bench.inputs.tiny_shards import tiny_jpeg
from strata.processes import leaving_on

API_MIB, WORKER_MIB = 600.0, 1024.0  # the bounds of memory above idle
SETTLE_SECONDS = 3.0  # after which a service that has nothing to do is idle


@dataclass(frozen=True)
class Sizes:
    """How much is thrown at the service."""

    tars: int = 1000
    images: int = 1000  # by POST, and as many through the workers
    patterns: int = 1000
    ids: int = 1000
    cases: int = 10_000
    flips: int = 400

    def scaled(self, factor: float) -> Sizes:
        """So many times as much of everything, at least one."""
        return Sizes(**{name: max(1, round(value * factor)) for name, value in vars(self).items()})


def run(folder: Path, seed: int, sizes: Sizes, only: frozenset[str], profiles: Sequence[str]) -> int:
    """Attack a service with a key and workers, and one without; returns the exit code."""
    tally, began = Tally(), time.monotonic()
    with (
        AttackedService(folder / "main", tally, profiles=profiles) as main,
        AttackedService(folder / "open", tally, workers=False, key=False) as unlocked,
    ):
        main.wait_ready()
        warm_up(main)
        unlocked.memory.begin()
        print(f"seed {seed}: ready after {time.monotonic() - began:.0f} s", flush=True)

        def both(attack: Callable[[AttackedService], None]) -> None:
            for service in (main, unlocked):
                attack(service)

        attacks: dict[str, Callable[[], object]] = {
            "tars": lambda: attack_tars(main, seed, sizes.tars),
            "lists": lambda: attack_lists(main),
            "workers": lambda: attack_workers(main, seed, sizes.images),
            "uploads": lambda: attack_uploads(main, seed, sizes.images),
            "patterns": lambda: attack_patterns(main, seed, sizes.patterns),
            "ids": lambda: attack_ids(main, seed, sizes.ids),
            "bombs": lambda: both(lambda each: attack_bombs(each, seed)),
            "browser": lambda: attack_as_browser(unlocked),
            "connections": lambda: both(attack_connections),
            "api": lambda: attack_api(((main, True), (main, False), (unlocked, True)), seed, sizes.cases),
            "parts": lambda: attack_parts(main, seed, sizes.flips),
        }
        for name, attack in attacks.items():
            if not only or name in only:
                started = time.monotonic()
                _attack(name, attack, tally)
                _tell(name, time.monotonic() - started, main, tally)
        warm_up(main)  # it still works
        for service in (main, unlocked):
            service.note_crashes()
    return report(tally, main, unlocked, time.monotonic() - began)


def _attack(name: str, attack: Callable[[], object], tally: Tally) -> None:
    """Call an attack; if the service does not answer as it must for the attack to go on, that is wrong too."""
    try:
        attack()
    except Exception as error:
        traceback.print_exc()
        tally.add(tally.wrong, f"{name}: the attack could not go on: {type(error).__name__}: {error}")


def warm_up(service: AttackedService) -> None:
    """Describe images with both profiles, so that all models are loaded, and note the memory when nothing is done."""
    shard = service.shards / "warm.tar"
    first = not shard.exists()
    write_tar(shard, [tiny_jpeg(number) for number in range(8)])
    for profile in service.profiles:
        job = submit(service, "warm-up", str(shard), profile)
        for each in finished(service, "warm-up", [job] if job else []):
            if sum(row["status"] == "succeeded" for row in rows_of(service, "warm-up", each)) != 8:
                service.tally.add(
                    service.tally.wrong, f"warm-up: not all images of a plain shard succeed with {profile}"
                )
    if first:
        time.sleep(SETTLE_SECONDS)
        service.memory.begin()


def _tell(name: str, seconds: float, service: AttackedService, tally: Tally) -> None:
    """Print what an attack has come to."""
    statuses = sorted((status, count) for (attack, status), count in tally.statuses.items() if attack == name)
    api, worker = service.memory.above_idle()
    told = ", ".join(f"{count} x {status}" for status, count in statuses)
    bad = len(tally.hangs), len(tally.errors), len(tally.wrong)
    print(
        f"{name}: {seconds:.0f} s; {told}; hangs, 5xx, wrong {bad}; API +{api:.0f} MiB, worker +{worker:.0f} MiB",
        flush=True,
    )


def report(tally: Tally, main: AttackedService, unlocked: AttackedService, seconds: float) -> int:
    """Print the result; returns the exit code."""
    api, worker = main.memory.above_idle()
    api = max(api, unlocked.memory.above_idle()[0])
    done = tally.done
    print(f"slowest response: {tally.slowest[0]:.1f} s, {tally.slowest[1]}; {seconds:.0f} s in all")
    print(f"wrong {len(tally.wrong)} of {done['tars']} tars, {done['flips']} flipped bits, {done['ids']} ids")
    within = api <= API_MIB and worker <= WORKER_MIB
    print(
        f"hangs {len(tally.hangs)} crashes {len(tally.crashes)} undocumented 5xx {len(tally.errors)} "
        f"of {done['tars']} tars, {done['images']} images, {done['API cases']} API cases, {done['patterns']} patterns; "
        f"peak API {api:.0f} MiB above idle, worker {worker:.0f} MiB"
    )
    return 0 if tally.clean and within else 1


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="how many times as much is thrown at the service")
    parser.add_argument("--only", default="", help="attacks, separated by commas; by default all")
    parser.add_argument("--profiles", default="fake,demo", help="the first is that of most jobs")
    parser.add_argument("--keep", type=Path, help="a new folder for shards, stores and logs, which is kept")
    options = parser.parse_args()
    with ExitStack() as stack:
        stack.enter_context(leaving_on(signal.SIGTERM))
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        only = frozenset(filter(None, options.only.split(",")))
        sys.exit(run(folder, options.seed, Sizes().scaled(options.scale), only, options.profiles.split(",")))


if __name__ == "__main__":
    main()

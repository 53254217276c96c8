"""The rows of the peers' table: what each peer does with the same images."""

from __future__ import annotations

import shutil
import subprocess
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.inputs.tiny_shards import write_shard
from bench.peers.runs import Peer, Run, RunFailed, has_the_demo, kill, kill_a_worker
from samples.shards import ShardOptions, write_shards
from strata.queue import EmbeddedServer

IMAGES_A_SHARD = 500
SECONDS = 0.005
SCENES = 5_500_000  # first seed of the demo's images
SCENES_A_SHARD = 16  # a micro-batch of the demo
KILLED_AT = 0.4  # of the images
ROWS = ("ideal", "first", "empty", "killed", "demo")
Figures = dict[str, dict[str, list[float]]]


class Bench:
    """The runs of all peers in a folder. peers: with the Python that has their packages."""

    def __init__(self, folder: Path, peers: Mapping[Peer, str]) -> None:
        self.folder, self.peers = folder, peers
        self.figures: Figures = defaultdict(lambda: defaultdict(list))
        self._runs = 0

    def measure(self, rows: Sequence[str], options: Namespace) -> None:
        """Measure each of ROWS that is wanted once."""
        if "ideal" in rows:
            for workers in map(int, options.workers.split(",")):
                self.over_ideal(workers, options.images)
        if "first" in rows:
            self.first_row(workers=2)
        if "empty" in rows:
            self.empty_stage(options.tiny, workers=2)
        if "killed" in rows:
            for everything in (False, True):
                self.killed(4 * options.images, 4, everything)
        if "demo" in rows:
            self.demo(options.scenes)

    def shards(self, images: int) -> Path:
        """A folder with so many images, made once."""
        folder = self.folder / f"shards-{images}"
        for first in range(0, images, IMAGES_A_SHARD):
            path = folder / f"{first // IMAGES_A_SHARD:05d}.tar"
            if not path.exists():
                write_shard(path, first, min(IMAGES_A_SHARD, images - first))
        return folder

    def over_ideal(self, workers: int, images: int) -> None:
        """A stage of fixed cost with so many workers, so many images each."""
        for peer in self.peers:
            with self._run(peer, self._part(peer, images) * workers, workers, SECONDS) as run:
                run.complete()
                self._note(peer, f"{workers} workers over ideal", run.rate() * SECONDS / workers)

    def empty_stage(self, images: int, workers: int) -> None:
        """A stage that costs nothing, from start to end."""
        for peer in self.peers:
            part = self._part(peer, images)
            with self._run(peer, part, workers, 0.0) as run:
                run.complete(measured=True)
                self._check(run, part)
                self._note(peer, "empty stage, images/s", part / run.whole)
                self._note(peer, "empty stage, MiB", run.memory)

    def first_row(self, workers: int) -> None:
        """The seconds from the start to the first row of a few images."""
        for peer in self.peers:
            with self._run(peer, 64, workers, 0.0) as run:
                run.complete(measured=True)
                self._note(peer, "first row, seconds from start", run.first_row)

    def killed(self, images: int, workers: int, everything: bool) -> None:
        """A worker or everything is killed in the middle; then it ends, or is started again."""
        what = "all killed" if everything else "a worker killed"
        for peer in self.peers:
            part = self._part(peer, images)
            with self._run(peer, part, workers, SECONDS) as run:
                process = run.until(KILLED_AT, part)
                if everything:
                    kill(process)
                    run.complete()
                else:
                    kill_a_worker(process, run.folder / "calls")
                    self._wait(process, run, part)
                keys, calls = run.keys(), run.calls()
                # what was computed twice, whether or not the rest was computed at all
                again = len(calls) - len({key for _, key in calls})
                self._note(peer, f"{what}: rows lost, %", 100 * (part - len(keys)) / part)
                self._note(peer, f"{what}: rows doubled, %", 100 * (keys.total() - len(keys)) / part)
                self._note(peer, f"{what}: computed again, %", 100 * again / part)

    def demo(self, images: int) -> None:
        """The demo's real stages, two workers of one thread."""
        folder = self.folder / "scenes"
        if not folder.exists():
            write_shards(folder, ShardOptions(images, SCENES, SCENES_A_SHARD))
        for peer, python in self.peers.items():
            if not has_the_demo(python):
                print(f"{peer.name} has no row of the demo: {python} cannot import its stages", file=sys.stderr)
                continue
            with self._run(peer, images, 2, 0.0, folder) as run:
                run.complete()
                self._check(run, images)
                self._note(peer, "the demo's stages, images/s", run.rate_of_rows())

    @staticmethod
    def _part(peer: Peer, images: int) -> int:
        return round(images * peer.share)

    @staticmethod
    def _wait(process: subprocess.Popen[bytes], run: Run, images: int) -> None:
        # a pool that has lost a worker waits for ever for its task
        longest = 60 + 4 * images * run.seconds / run.workers
        try:
            process.wait(longest)
        except subprocess.TimeoutExpired:
            pass
        finally:
            kill(process)

    @staticmethod
    def _check(run: Run, images: int) -> None:
        if run.exits[-1] or len(run.keys()) != images:
            raise RunFailed(f"{run.peer.name} has not described all images")

    def _run(self, peer: Peer, images: int, workers: int, seconds: float, scenes: Path | None = None) -> _Folder:
        self._runs += 1
        folder, shards = self.folder / f"run-{self._runs}", scenes or self.shards(images)
        return _Folder(Run(peer, folder, shards, workers, seconds, self.peers[peer], demo=scenes is not None))

    def _note(self, peer: Peer, row: str, value: float) -> None:
        print(f"{peer.name}: {row}: {value:.3g}", file=sys.stderr, flush=True)
        self.figures[row][peer.name].append(value)


class _Folder:
    """A run with its Redis if it needs one; its files are removed at the end.

    If the run fails, the reason is told on stderr, and the peer has no figure in this row and round.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.stack = run, ExitStack()

    def __enter__(self) -> Run:
        if self.run.peer.redis:
            server = EmbeddedServer(self.run.folder / "redis")
            server.start()
            self.stack.callback(server.stop)
            self.run.redis_url = server.url
        return self.run

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        self.stack.close()
        failed = isinstance(error, RunFailed)
        if failed:
            print(f"{error}; the end of its log:\n{self.run.log_end()}", file=sys.stderr, flush=True)
        shutil.rmtree(self.run.folder, ignore_errors=True)
        return failed

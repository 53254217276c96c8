"""The whole service with the real demo models: a shard, a SIGKILL in mid-job, a second submission, a photograph.

The shard has two chunks of the demo, whose models are most of what these tests cost.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from PIL import Image

from samples.service import running_service
from strata.cli import exits
from strata.client.client import Client
from strata.components import strata_command
from strata.core.layers import LAYERS
from strata.core.profiles import read_profile
from strata.core.records import Record
from strata.core.schemas import JobStatus
from strata.queue.queue import Queue
from tests.checkout import CHECKOUT
from tests.cli.test_cli import code_of

SAMPLES = CHECKOUT / "samples"
IMAGES = 32


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    """A running service with the demo profile and short leases, and its data folder."""
    folder = tmp_path_factory.mktemp("service")
    shards = folder / "shards"
    shards.mkdir()
    with tarfile.open(SAMPLES / "shards" / "00000.tar") as whole, tarfile.open(shards / "00000.tar", "w") as part:
        for member in whole:
            if int(Path(member.name).stem) < IMAGES:
                part.addfile(member, whole.extractfile(member))
    with running_service(folder, shards, lease_seconds="4", profile="demo") as client:
        yield client, folder / "data"


def shard(data: Path) -> str:
    """The shard of the service with this data folder."""
    return str(data.parent / "shards" / "00000.tar")


def worker_pid(data: Path, group: str) -> int:
    """The process that computes a group, as its heartbeat tells."""
    beats = Queue(f"unix://{data / 'redis.sock'}").heartbeats.live()
    return next(beat.pid for beat in beats if group in beat.groups)


def test_a_killed_vision_worker_costs_no_row(service: tuple[Client, Path]) -> None:
    client, data = service
    job = client.submit([shard(data)])
    deadline = time.monotonic() + 300
    while client.job(job.id).groups["vision"].images < 16:
        assert time.monotonic() < deadline, "the job does not move"
        time.sleep(0.5)
    os.kill(worker_pid(data, "vision"), signal.SIGKILL)
    end = client.wait(job.id, poll=1.0)
    assert end.status is JobStatus.COMPLETED
    assert (end.request_counts.total, end.request_counts.succeeded) == (IMAGES, IMAGES)
    rows = [
        row
        for path in sorted((data / "store" / "parts" / "llm").rglob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    assert Counter(row["key"] for row in rows) == {f"{i:09d}": 1 for i in range(IMAGES)}
    for row in rows:
        assert all(row[layer] is not None for layer in ("alt_text", "caption", "regions", "objects", "text"))
        assert row["description"]["text"]


def test_the_same_shard_again_calls_no_model(service: tuple[Client, Path]) -> None:
    client, data = service
    before = {path: path.stat().st_mtime_ns for path in (data / "store" / "parts").rglob("*.parquet")}
    started = time.monotonic()
    end = client.wait(client.submit([shard(data)]).id, poll=0.1)
    assert end.request_counts.succeeded == end.groups["vision"].reused == end.groups["llm"].reused == IMAGES
    assert time.monotonic() - started < 30  # and not the minute of the models
    assert {path: path.stat().st_mtime_ns for path in (data / "store" / "parts").rglob("*.parquet")} == before


def test_results_and_overlay_of_a_single_image(service: tuple[Client, Path]) -> None:
    client, _ = service
    answer = client.caption(SAMPLES / "images" / "one.jpg", alt_text="things", wait=60)
    assert isinstance(answer, Record)
    assert answer.alt_text == "things"
    assert answer.regions and answer.description
    assert {"captioner", "detector", "segmenter", "ocr", "matcher", "composer"} <= set(answer.seconds)
    job = next(job for job in client.jobs().jobs if job.kind == "image")
    assert client.overlay(job.id, answer.key).startswith(b"\x89PNG")


def test_describe_gives_what_the_service_gives(service: tuple[Client, Path]) -> None:
    """The same pipelines in one process: the same texts, boxes and decisions, and scores but for rounding."""
    path = SAMPLES / "images" / "one.jpg"
    theirs = service[0].caption(path, alt_text="things", wait=60)
    # a process of its own, as a user's: other tests have changed threads and modules of this one
    code = "import sys, strata; print(strata.describe(sys.argv[1], 'demo', alt_text='things').model_dump_json())"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = Record.model_validate_json(done.stdout.splitlines()[-1])
    assert isinstance(theirs, Record)
    assert ours.description == theirs.description and ours.fingerprint == theirs.fingerprint
    assert ours.image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for layer in LAYERS.values():
        pairs = list(
            zip(layer.entries(getattr(ours, layer.name)), layer.entries(getattr(theirs, layer.name)), strict=True)
        )
        for mine, other in pairs:
            assert (layer.display_text(mine), mine.kept, mine.reason) == (
                layer.display_text(other),
                other.kept,
                other.reason,
            )
            assert mine.score == pytest.approx(other.score, abs=1e-2)


def test_a_photograph_goes_through_and_the_matcher_doubts_it(service: tuple[Client, Path], tmp_path: Path) -> None:
    from skimage import data as photographs

    client, _ = service
    path = tmp_path / "astronaut.jpg"
    Image.fromarray(photographs.astronaut()).save(path)
    answer = client.caption(path, wait=60)
    assert isinstance(answer, Record)
    assert answer.status == "succeeded"
    entries = [*(answer.regions or ()), *(answer.objects or ())]
    kept = [entry for entry in entries if entry.kept]
    assert len(kept) <= len(entries) / 2, [(entry.phrase, entry.match) for entry in kept]


def calibrate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`strata calibrate` in a process of its own, with as many threads as it takes by itself."""
    command = strata_command("calibrate", *arguments)
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=300)


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """The exit code and the lines on stderr of `strata calibrate` in this process, which prints nothing else."""
    capfd.readouterr()
    code = code_of("calibrate", *arguments)
    out, err = capfd.readouterr()
    assert out == ""
    return code, err.splitlines()


def verdict_on(job: str, record: Record, is_bad: bool) -> dict[str, Any]:
    """A judgment that accepts a description, or edits it by leaving its first sentence out."""
    said = {"id": f"judgment-{record.key}", "job": job, "key": record.key, "reviewer": "Ada"}
    first = {"index": 0, "verdict": "rejected", "reason": "unsupported_object"}
    return {**said, "verdict": "edited", "sentences": [first]} if is_bad else {**said, "verdict": "accepted"}


def test_thresholds_are_calibrated_from_a_job(
    service: tuple[Client, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client, data = service
    job = client.wait(client.submit([shard(data)]).id, poll=0.1).id
    # labels: phrases that the demo's matcher is sure of, and the same crops with a wrong one
    one = SAMPLES / "images" / "one.jpg"
    answer = client.caption(one, wait=60)
    assert isinstance(answer, Record) and answer.regions
    kept = [region for region in answer.regions if region.kept]
    wrong = next(phrase for phrase in ("a whale", "a pizza") if phrase not in {region.phrase for region in kept})
    labels = tmp_path / "labels.jsonl"
    entries = [
        {"image": str(one), "box": region.box, "phrase": phrase, "right": right}
        for region in kept
        for phrase, right in ((region.phrase, True), (wrong, False))
    ]
    labels.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    options = ("--store", str(data / "store"), "--folder", str(tmp_path / "profiles"), "--labels", str(labels))
    found, lines = refused(capfd, "demo", "--from", job, *options, "--judgments")
    assert found == exits.USAGE and "too few judgments: 20 judged phrases are needed" in lines[-1]
    # people accept all descriptions but one, of which they reject the first sentence
    records = list(client.results(job))
    bad = next(record for record in records if record.description and len(record.description.sentences) > 1)
    said = [verdict_on(job, record, record is bad) for record in records if record.description]
    httpx.post(f"{client.url}/v1/judgments", json={"judgments": said}, timeout=60).raise_for_status()
    done = calibrate("demo", "--from", job, *options, "--judgments", "--precision", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    for step in ("loading libraries", "reading images: 1 of 500", "loading the matcher", "scoring pairs: 0 of "):
        assert f"strata: {step}" in done.stderr
    told = json.loads(done.stdout)
    for layer, figures in told["thresholds"].items():
        assert figures["passing"] <= 0.02 and figures["pairs"] >= 250, layer
        assert figures["own_passing"] > 0.7  # most of what the demo says of its own scenes is right
    assert told["thresholds"]["region"]["recall"] > 0.9
    assert told["thresholds"]["region"]["wrong_passing"] < 0.5
    # a description whose sentences rest on nothing, such as that of an empty picture, labels nothing
    labelled = [one for one in records if one.description and any(said.evidence for said in one.description.sentences)]
    assert 20 < told["source"]["judgments"] <= len(labelled)
    assert told["thresholds"]["region"]["judged"]["precision"]["judged"] >= 20
    assert told["thresholds"]["region"]["judged"]["recall"]["low"] > 0.5
    # the new profile can be used, has the numbers and tells their source; the curve is a picture
    path = Path(told["profile"])
    profile = read_profile(path)
    assert profile.name == "demo-calibrated"
    assert profile.evidence.region == told["thresholds"]["region"]["threshold"] < 0.91
    written = path.read_text(encoding="utf-8")
    assert f"from {job}: {told['source']['images']} images" in written
    assert (
        f"# {told['source']['judgments']} judgments of people: at least 50% of the judged phrases that pass are right."
        in written
    )
    with Image.open(told["curve"]) as curve:
        assert curve.format == "PNG" and len(set(curve.convert("RGB").getdata())) > 4
    # what cannot be done is one line, below those that tell what happens
    steps = ("loading libraries", "reading images", "loading the matcher")
    for arguments, code, part in (
        (("demo", "--from", job, "--images", "2", "--name", "few"), exits.USAGE, "too few phrases"),
        (("demo", "--from", "no-such-job", "--name", "other"), exits.REQUEST_REFUSED, "no-such-job"),
        (("demo", "--from", job), exits.USAGE, "exists"),
    ):
        found, (*before, last) = refused(capfd, *arguments, *options)
        assert found == code and part in last
        assert all(line.removeprefix("strata: ").startswith(steps) for line in before)

"""`strata review` on a store: what people said, how far they agree, and files of other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from strata.core import JobRequest
from strata.core.requests import ShardSummary
from strata.judgments import Judgments
from strata.store import Store
from tests.cli.test_cli import code_of
from tests.described import FINGERPRINT, described, write_part
from tests.judged import JOB, START, judgment


@pytest.fixture
def store(store: Store, tmp_path: Path) -> Store:
    """A store with a job of four described images, a to d, which are files."""
    images = []
    for key in "abcd":
        path = tmp_path / f"{key}.png"
        Image.new("RGB", (64, 48)).save(path)
        place = described(key).image.model_copy(update={"uri": str(path), "offset": 0, "size": path.stat().st_size})
        images.append(described(key, ["cat"]).model_copy(update={"image": place}))
    write_part(store, images)
    summary = ShardSummary(shard="a.tar", identity="a" * 16, images=4)
    prints = {"index": "0" * 16, "vision": "1" * 16, "llm": FINGERPRINT}
    values = {"id": JOB, "kind": "batch", "shards": ["a.tar"], "profile": "fake", "fingerprints": prints}
    more = {"chunk_size": 4, "priority": "lo", "metadata": {}, "created_at": START, "indexed": [summary]}
    store.write_job_file(JOB, "request", JobRequest.model_validate({**values, **more}))
    return store


def run(store: Store, *arguments: str) -> int:
    return code_of("review", *arguments, "--store", store.uri)


def test_list_and_agreement(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = judgment("1", 0, "rejected", comment="no\x1b[31m\nway")
    Judgments(store).append([wrong, judgment("2", 1, supersedes=wrong.id), judgment("3", 2, key="b")])
    assert run(store, "agreement", JOB) == 0
    assert capsys.readouterr().out.splitlines() == [
        "no record is judged by two or more reviewers, so there is no agreement to compute"
    ]
    Judgments(store).append([judgment("4", 3, reviewer="Bob"), judgment("5", 4, "rejected", key="b", reviewer="Bob")])
    assert run(store, "list", JOB) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2:5] for line in lines] == [
        ["a", "Ada", "accepted"],
        ["b", "Ada", "accepted"],
        ["a", "Bob", "accepted"],
        ["b", "Bob", "rejected"],
    ]
    assert run(store, "list", "--all", "--json", "--reviewer", "Ada") == 0
    assert [json.loads(line)["id"][-1] for line in capsys.readouterr().out.splitlines()] == ["1", "2", "3"]
    assert run(store, "list", "--all") == 0
    assert "\x1b" not in capsys.readouterr().out
    assert run(store, "agreement", JOB) == 0
    told = capsys.readouterr().out
    assert "Ada and Bob" in told
    assert told.splitlines()[:4] == [
        "2 records judged by two or more reviewers; Krippendorff's alpha:",
        "  verdicts                      0.000",
        "  whether a record is rejected  0.000",
        "  sentences                     not defined",
    ]
    assert run(store, "agreement", "--json") == 0
    assert json.loads(capsys.readouterr().out)["alpha"] == 0
    assert run(store, "list", "none") == 10
    assert run(store, "list", "../x") == 10


def test_lost_files_are_named_until_the_loss_is_accepted(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    judgments = Judgments(store)
    (lost,) = judgments.append([judgment("1", 0)])
    judgments.append([judgment("2", 1, key="b")])
    store.remove(store.path(lost))
    assert run(store, "list", JOB) == 14
    out, err = capsys.readouterr()
    assert "\tb\t" in out and f"{lost} is missing" in err
    assert run(store, "mend", JOB) == 0
    assert f"{lost} is missing" in capsys.readouterr().out
    assert run(store, "list", JOB) == 0


def test_label_studio_there_and_back(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ls"
    Judgments(store).append([judgment("1", 0)])
    assert run(store, "export", JOB, "--format", "label-studio", "--out", str(out), "--url", "http://s:1/p/") == 0
    assert run(store, "export", JOB, "--format", "label-studio", "--out", str(out)) == 2
    tasks = json.loads((out / "tasks.json").read_text())
    assert {task["data"]["strata"]["key"] for task in tasks} == set("abcd")
    assert run(store, "import", str(out / "tasks.json"), "--format", "label-studio") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 judgments stored, 1 known already, 0 left out"
    assert f"http://s:1/p/v1/records/{JOB}/a/image?identity={'a' * 16}" in [task["data"]["image"] for task in tasks]
    # one record is edited there, one is of a job that is not here, one is no record of the job
    by_key = {task["data"]["strata"]["key"]: task for task in tasks}
    text = {"from_name": "description", "to_name": "image", "type": "textarea", "value": {"text": ["One.", "New."]}}
    for key in "bcd":
        by_key[key]["annotations"] = [{"id": 1, "completed_by": {"email": "bob@example.org"}, "result": [text]}]
    by_key["c"]["data"]["strata"]["job"] = "0" * 22
    by_key["d"]["data"]["strata"]["key"] = "none"
    (out / "tasks.json").write_text(json.dumps(tasks))
    capsys.readouterr()
    assert run(store, "import", str(out / "tasks.json"), "--format", "label-studio") == 0
    printed, err = capsys.readouterr()
    assert printed == "1 judgment stored, 1 known already, 2 left out\n"
    assert "no described image 'none'" in err and "there is no job" in err
    assert run(store, "import", str(out / "tasks.json"), "--format", "label-studio") == 0
    assert capsys.readouterr().out == "0 judgments stored, 2 known already, 2 left out\n"
    found = {one.key: one for one in Judgments(store).all().judgments if one.reviewer != "Ada"}
    assert (found["b"].text, found["b"].reviewer) == ("One. New.", "bob@example.org")


def test_fiftyone_there_and_back(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fo"
    (tmp_path / "d.png").unlink()
    assert run(store, "export", JOB, "--format", "fiftyone", "--out", str(out), "--where", "objects > 0") == 0
    assert "d.png: no such file; the record is left out" in capsys.readouterr().err
    data = json.loads((out / "dataset.json").read_text())
    assert all((out / sample["filepath"]).is_file() for sample in data["samples"])
    assert len(data["samples"]) == 3
    for sample in data["samples"]:
        sample["tags"] = ["accepted"]
    (out / "dataset.json").write_text(json.dumps(data))
    assert run(store, "import", str(out / "dataset.json"), "--format", "fiftyone") == 2
    assert run(store, "import", str(out / "dataset.json"), "--format", "fiftyone", "--reviewer", "Bob") == 0
    assert [one.reviewer for one in Judgments(store).all().judgments] == ["Bob"] * 3
    (out / "x.json").write_text("{}")
    assert run(store, "import", str(out / "x.json"), "--format", "fiftyone", "--reviewer", "Bob") == 2

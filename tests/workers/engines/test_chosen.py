"""`strata run --from`: a job of chosen rows without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from strata.cli import exits
from strata.cli.main import app
from strata.cli.running import command
from strata.core import ChosenRows, Estimate, JobStatus, load_profile
from strata.jobs import Chosen
from strata.snapshots.chosen import Pinning
from strata.store import Store
from tests.workers.engines.runs import options, rows_of, run_here, settings_of, shards_of
from tests.workers.engines.test_command import environment
from workers.engines.job import Asked
from workers.engines.start import computed, opened


def test_rows_of_a_job_that_was_run_are_run_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    first, view = run_here(settings, shards_of(tmp_path / "shards", 2, 5), options())
    assert (view.request_counts.succeeded, view.request_counts.failed) == (8, 2)
    store = Store(settings.store_uri)
    profile = load_profile("fake", settings.profiles_dir)
    rows = ChosenRows(sources=[first.id], where="key in ('000000001', '000000006')")
    asked = Asked([], profile, {}, None, None, Chosen(rows, Pinning(store).pin(rows.sources, rows.where)))
    job = opened(settings, asked, options(), lambda view: None)
    view = computed(job, settings, options())
    assert view.status is JobStatus.COMPLETED and view.request_counts.succeeded == 2 and view.chosen == rows
    assert [key for key, _ in rows_of(store, job.request)] == ["000000001", "000000006"]
    assert {image["image"]["uri"] for _, image in rows_of(store, job.request)} == set(first.shards)


def test_a_dry_run_samples_the_chosen_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(command, "_end_on_signals", lambda job: None)
    first, _ = run_here(settings_of(tmp_path), shards_of(tmp_path / "shards", 2, 5), options())
    folder = tmp_path / "run"
    folder.mkdir()
    # the three have results of this profile; the two that failed have none
    where = "status == 'failed' or key in ('000000001', '000000006', '000000007')"
    dry = ["--dry-run", "-n", "1", "--json", "--run-folder", str(folder)]
    result = CliRunner().invoke(app, ["run", "--from", first.id, "--where", where, *dry])
    assert result.exit_code == 0, result.output
    assert "describes a random sample of the chosen rows" in result.stderr
    found = Estimate.model_validate_json(result.stdout)
    assert (found.shards, found.images, found.to_compute, found.described) == (2, 5, 2, 1)
    other = tmp_path / "other"
    other.mkdir()
    dry[-1] = str(other)
    result = CliRunner().invoke(app, ["run", "--from", first.id, "--where", "sharpness < 3", *dry])
    assert result.exit_code == exits.JOB_FAILED
    found = Estimate.model_validate_json(result.stdout)
    assert found.unread == 2 and "sharpness" in found.notes[0]


def test_what_the_command_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_STORE", str(tmp_path / "store"))
    folder = tmp_path / "run"
    folder.mkdir()
    for arguments, told in (
        (["--from", "nobody"], "no such job, snapshot, profile or fingerprint"),
        (["--where", "words < 1"], "name SHARDs"),
        (["a.tar", "--from", "nobody"], "name SHARDs"),
        (["a.tar", "--where", "words < 1"], "--where chooses rows"),
    ):
        result = CliRunner().invoke(app, ["run", *arguments, "--run-folder", str(folder)])
        assert told in f"{result.output}{result.exception}", (arguments, result.output)


def test_a_job_is_shown_with_what_it_was_chosen_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    first, _ = run_here(settings, shards_of(tmp_path / "shards", 1, 3), options())
    rows = ChosenRows(sources=[first.id])
    profile = load_profile("fake", settings.profiles_dir)
    asked = Asked([], profile, {}, None, None, Chosen(rows, Pinning(Store(settings.store_uri)).pin([first.id], None)))
    view = computed(opened(settings, asked, options(), lambda view: None), settings, options())
    monkeypatch.setenv("STRATA_STORE", settings.store_uri)
    shown = CliRunner().invoke(app, ["status", view.id, "--store", settings.store_uri])
    assert shown.exit_code == 0 and f"images of: {first.id}" in shown.output
    told = CliRunner().invoke(app, ["status", view.id, "--store", settings.store_uri, "--json"])
    assert json.loads(told.output)["chosen"] == {"sources": [first.id], "where": None}
    # the texts of both jobs are compared without a snapshot
    compared = CliRunner().invoke(app, ["snapshot", "diff", first.id, view.id, "--store", settings.store_uri])
    assert compared.exit_code == 0, compared.output
    assert "texts: 2 images in both, 0 with another text" in compared.output
    unknown = CliRunner().invoke(app, ["snapshot", "diff", first.id, "nobody", "--store", settings.store_uri])
    assert unknown.exit_code == exits.REQUEST_REFUSED and "no snapshot, job or data set 'nobody'" in unknown.output

"""Jobs that want other texts of the same images: only the group `llm` is computed again."""

from __future__ import annotations

import json
from pathlib import Path

from models.pipeline import LlmPipeline
from strata.core import Record, TextSettings
from strata.core.parameters import VariantName
from strata.jobs.jobs import Jobs
from strata.jobs.results import Results
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard

STAGES = {name: stage for name, stage in FAKE_PROFILE.stages.items() if name != "composer"}
PROFILE = FAKE_PROFILE.model_copy(update={"stages": STAGES})
COUNT = 6


def records_of(jobs: Jobs, job: str) -> list[Record]:
    """The rows of a job that has ended."""
    found = Results(jobs.request(job), jobs.summaries(job), jobs.store, jobs.view(job).status).page(None, 500).rows
    return [row for row in found if isinstance(row, Record)]


def test_a_second_job_with_other_variants_reuses_the_layers(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(30 + number) for number in range(COUNT)])
    machine = FakeMachine(jobs, profile=PROFILE, roots=[str(tmp_path)])
    machine.llm = LlmPipeline(PROFILE)  # type: ignore[assignment]
    found: dict[VariantName, str] = {}
    with machine:
        names: tuple[VariantName, ...] = ("json", "tags")
        for number, name in enumerate(names):
            profile = PROFILE.with_texts(TextSettings(variants=[name]))
            job = jobs.new.create("batch", [shard], profile, "lo").id
            wait_for_end(jobs, job)
            view = jobs.view(job)
            assert view.request_counts.succeeded == COUNT
            # the layers of the first job serve both; the texts are new
            assert view.groups["vision"].reused == number * COUNT and view.groups["llm"].reused == 0
            ((variant,),) = {tuple(one.name for one in record.variants or ()) for record in records_of(jobs, job)}
            found[name] = variant
        assert machine.vision.images == COUNT
        # the first wish again: nothing is computed
        first = PROFILE.with_texts(TextSettings(variants=["json"]))
        again = jobs.new.create("batch", [shard], first, "lo").id
        wait_for_end(jobs, again)
        assert jobs.view(again).groups["llm"].reused == COUNT
        texts = [record.variants[0].text for record in records_of(jobs, again) if record.variants]
    assert found == {"json": "json", "tags": "tags"}
    assert [json.loads(text)["width"] for text in texts] == [30 + number for number in range(COUNT)]

"""Which shards a tenant's jobs have; without a service beside it, whose workers would take their chunks."""

from __future__ import annotations

from app.tenants import Tenants
from strata.core import FINAL_GROUP, ShardSummary
from strata.jobs import Jobs
from tests.fakes import FAKE_PROFILE


def test_shards_that_are_indexed_after_a_look_are_the_tenant_s_too(jobs: Jobs) -> None:
    tenants, states = Tenants(jobs), jobs.queue.job_states

    def seen() -> set[tuple[str, str]]:
        for known in tenants._known.values():
            known.read_at = None
        return set(tenants.shards("a"))

    request = jobs.new.create("batch", ["/a.tar", "/b.tar"], FAKE_PROFILE, "lo", tenant="a")
    jobs.new.create("batch", ["/c.tar"], FAKE_PROFILE, "lo", tenant="b")
    # it is listed before it is active, and is no job that has ended because of that
    states.deactivate(request.id)
    assert seen() == set()
    made = set()
    for identity, shard in (("a" * 16, "/a.tar"), ("b" * 16, "/b.tar")):
        summary = ShardSummary(shard=shard, identity=identity, images=2)
        states.record(request.id, request.index_chunk(shard), summary.counts, summary)
        made.add((request.fingerprints[FINAL_GROUP], identity))
        assert seen() == made
    # the same once more from what is kept, and nothing of a job that is deleted
    assert seen() == made
    jobs.store.remove_job(request.id)
    states.delete(request.id)
    jobs.queue.job_list.remove(request.id)
    assert seen() == set()

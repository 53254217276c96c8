"""The outbox: deliveries in the store, which survive the loss of Redis.

A delivery is the file `webhook` of its job, so that it goes with the job. A mark in `webhooks/pending` or
`webhooks/failed` lets it be found by one listing. The mark is written after the file, and a mark without its delivery
is passed over and removed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from strata.core import DeliveryState, JobEnd, JobView, WebhookTarget, checked_job_id, is_job_id
from strata.store import Store
from strata.webhooks.deliveries import Delivery

FILE = "webhook"
MARKED = (DeliveryState.PENDING, DeliveryState.FAILED)


class Outbox:
    """Keeps deliveries. Every method raises OSError if the store cannot be reached.

    added: the jobs whose deliveries this process has made due, for a sender of the same process.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.added: deque[str] = deque()

    def prepare(self, job_id: str, target: WebhookTarget) -> None:
        """Keep whom a new job's end is told."""
        self.store.write_job_file(job_id, FILE, Delivery.to(target), private=True)

    def find(self, job_id: str) -> Delivery | None:
        """The delivery of a job; None if the job has none. Raises DamagedFile."""
        return self.store.parse_job_file(job_id, FILE, Delivery)

    def end(self, job_id: str, run: int) -> None:
        """Tell an end of a job: its run is the number of this end. Telling the same end again changes nothing."""
        found = self.find(job_id)
        if found is None:
            return
        if found.run != run:
            found = found.due(run)
            self.store.write_job_file(job_id, FILE, found, private=True)
        if found.state is DeliveryState.PENDING:
            self.keep_mark(job_id, found.state)
            self.added.append(job_id)

    def send_again(self, job_id: str) -> Delivery | None:
        """Make the delivery of a job that has ended due once more, with the same message; None if it has none."""
        return self.change(job_id, lambda found: found.due())

    def change(self, job_id: str, act: Callable[[Delivery], Delivery]) -> Delivery | None:
        """Change a delivery and its mark."""
        found = self.find(job_id)
        if found is None:
            return None
        changed = act(found)
        # marked before it is written, so that who sees the new state finds it listed, also after a death in between
        self._mark(job_id, changed.state)
        self.store.write_job_file(job_id, FILE, changed, private=True)
        if changed.state is DeliveryState.PENDING and found.state is not DeliveryState.PENDING:
            self.added.append(job_id)
        self._remove_others(job_id, changed.state)
        return changed

    def marked(self, state: DeliveryState) -> list[str]:
        """The ids of the jobs whose deliveries are marked as pending or failed, sorted; one listing."""
        folder = f"webhooks/{state.value}"
        return self.store.without_foreign(folder, self.store.names(folder), is_job_id)

    def unmark(self, job_id: str) -> None:
        """Remove what marks a job's delivery, which is gone or was delivered."""
        for state in MARKED:
            self._remove(job_id, state)

    def keep_mark(self, job_id: str, state: DeliveryState) -> None:
        """Mark a job's delivery as in this state, and in no other one."""
        self._mark(job_id, state)
        self._remove_others(job_id, state)

    def envelope(self, job_id: str) -> JobView | None:
        """The end of a job; None if it has not ended."""
        return self.store.parse_job_file(job_id, "end", JobEnd)

    def _mark(self, job_id: str, state: DeliveryState) -> None:
        if state in MARKED:
            self.store.put(self._path(job_id, state), b"")

    def _remove_others(self, job_id: str, state: DeliveryState) -> None:
        for other in MARKED:
            if other is not state:
                self._remove(job_id, other)

    def _remove(self, job_id: str, state: DeliveryState) -> None:
        self.store.remove(self._path(job_id, state))

    def _path(self, job_id: str, state: DeliveryState) -> str:
        return self.store.path("webhooks", state.value, checked_job_id(job_id))

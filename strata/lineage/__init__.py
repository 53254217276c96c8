"""Lineage: events that tell a catalogue what a job, a snapshot or an export has read and written (openlineage.io).

Nothing is sent unless somebody asks: an option of a command, or the variables and files of its client
(`receivers.py`). `datasets.py` has the names of data sets, `runs.py` what a run is, `telling.py` the runs of commands,
`jobs.py` those of jobs. Only `events.py` imports the client, of an extra; it is imported when an event is made.
"""

from __future__ import annotations

from strata.lineage.datasets import Column, Data, columns_of, data_at, rows_data, snapshot_data
from strata.lineage.jobs import job_run, told_jobs
from strata.lineage.receivers import Receiver, is_asked, open_receiver
from strata.lineage.runs import Run, State, parents_of
from strata.lineage.telling import told_run

__all__ = [
    "Column",
    "Data",
    "Receiver",
    "Run",
    "State",
    "columns_of",
    "data_at",
    "is_asked",
    "job_run",
    "open_receiver",
    "parents_of",
    "rows_data",
    "snapshot_data",
    "told_jobs",
    "told_run",
]

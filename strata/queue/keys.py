"""The name of every key in Redis. Only `strata.queue` uses them."""

from __future__ import annotations

from strata.core import checked_job_id

CONSUMER_GROUP = "strata"
STORE = "strata:store"  # string: the id of the store whose jobs are in this database
QUEUED = "strata:queued"  # hash: chunk id -> message id, for chunks that are queued or in flight
ACTIVE = "strata:unfinished"  # hash: the id of an unfinished job -> KIND:SHARDS:CALLER
OPEN = "strata:open"  # hash: the sums of unfinished jobs, see scripts/open_jobs.lua
CHANGED = "strata:changed"  # set of the ids of the jobs that have changed since the scheduler has looked
SETTLED = "strata:settled"  # stream of the ids of the jobs of one image that got a result or never get one
WORKERS = "strata:workers"  # set of the names of workers
SUMS = "strata:sums"  # hash: what all processes have counted, by the fields of `strata.telemetry`
SCHEDULER = "strata:scheduler"  # string with an expiry: the owner of the scheduler's lock
CALLER = "caller"  # the field of a job's hash and of a message with the caller whose turn it takes
TRIAL = "trial"  # part of the names of the streams of trials
LISTED = "strata:list:"  # the beginning of the names of the lists of jobs; STATUS:KIND follows
ANNOUNCED = "strata:announced:"  # the beginning of the names of sets of jobs that are being created; IMAGE follows
SENT = "strata:sent:"  # the beginning of the names of strings with an expiry: IMAGE was sent for a batch lately
REFUSED = "strata:refused:"  # the beginning of the names of sets: the new files of refused requests for IMAGE, lately
REMOVING = "strata:removing:"  # the beginning of the names of sets of refused requests that remove files of IMAGE now
LIST_COMPLETE = "strata:list:complete"  # string that exists while the list of jobs has all jobs of the store
LIST_REBUILD = "strata:list:rebuild"  # string: the token of the process that rebuilds the list of jobs
JOB = "strata:job:"  # the beginning of the names of the keys of jobs, which scripts append ids to
USED = "strata:used:"  # the beginning of the names of windows; QUOTA:KEY follows
STORED = "strata:stored"  # hash: an upload, as `image_of` names it -> PIECE:BYTES:WINDOW, see scripts/use.lua
LEDGER = "strata:ledger:"  # the beginning of the names of ledgers; the id of a job follows
RESERVING = "strata:reserving:"  # the beginning of the names of sets of jobs with open reservations; KEY follows
MONEY_QUOTAS = "strata:money_quotas"  # hash: the id of an API key -> what it may spend a day, in millionths
EVENTS_SUFFIX = ":events"  # scripts append it to a job's key

# Chunks, by group and by chunk id


def stream(group: str, priority: str) -> str:
    """Stream: the chunks of a group and priority."""
    return f"strata:stream:{group}:{priority}"


def trials(group: str, priority: str) -> str:
    """Stream: chunks of waiting fingerprints that are tried. Each is claimed in the moment in which it is added."""
    return f"strata:stream:{group}:{TRIAL}:{priority}"


def lane(group: str, priority: str, caller: str) -> str:
    """List: the chunks that a caller has queued and that are not in the stream yet; each as in `parked`."""
    return f"strata:lane:{group}:{priority}:{caller}"


def turns(group: str, priority: str) -> str:
    """List: the callers with chunks in lanes, in the order of their turns."""
    return f"strata:turns:{group}:{priority}"


def waiters(chunk_id: str) -> str:
    """Set: the jobs that wait for a chunk."""
    return f"strata:waiters:{chunk_id}"


def layers(chunk_id: str) -> str:
    """Hash with an expiry: the layers of a single image so far, see `ImageLayers`."""
    return f"strata:layers:{chunk_id}"


def in_flight(chunk_id: str) -> str:
    """Hash: the isolation notes of a chunk, see `IsolationNotes`."""
    return f"strata:in_flight:{chunk_id}"


# What waits for a stage, by group and fingerprint; see `Waits`


def waits(group: str) -> str:
    """Sorted set: the fingerprints of a group that wait, by the time of their next trial in ms of Redis' clock."""
    return f"strata:waits:{group}"


def waiting(group: str, fingerprint: str) -> str:
    """Hash: stage, reason, since (ms), attempts, refusals, and trial (the id of the chunk that is tried now)."""
    return f"strata:waiting:{group}:{fingerprint}"


def parked(group: str, fingerprint: str, priority: str) -> str:
    """List: the chunks that stepped aside, the oldest first; each a JSON list of name, value, name, value …"""
    return f"strata:parked:{group}:{fingerprint}:{priority}"


def returning(group: str) -> str:
    """Set: the fingerprints whose stage works again, and whose parked chunks return to their streams."""
    return f"strata:returning:{group}"


# Jobs, by job id; each raises ValueError for a text that has not the form of one


def job(job_id: str) -> str:
    """Hash: request, status, times, error, rate, waiting, `GROUP_fingerprint`, and counts as `GROUP:NAME`."""
    return JOB + checked_job_id(job_id)


def done(job_id: str, group: str) -> str:
    """Hash: the chunks of a group that a job has counted. `index`: shard -> summary; others: IDENTITY/CHUNK -> ""."""
    return f"{job(job_id)}:{group}"


def events(job_id: str) -> str:
    """Stream: a job's events. It is trimmed, so old events may be missing."""
    return job(job_id) + EVENTS_SUFFIX


def ledger(job_id: str) -> str:
    """Hash: a job's budget, the sums of what it has spent and reserved, and the entries that add up to them."""
    return LEDGER + checked_job_id(job_id)


def charged(job_id: str) -> str:
    """Hash: what a job has used of the quota of its key: a chunk's field -> PIECE:IMAGES:WINDOW, see use.lua."""
    return f"{job(job_id)}:charged"


def closed(kind: str, period: int) -> str:
    """String with an expiry: how many jobs of a kind, or shards of batches, have ended in a period of ten seconds."""
    return f"strata:closed:{kind}:{period}"


def listed(status: str, kind: str) -> str:
    """Sorted set: the jobs with a status and kind, as ID:PROFILE:IMAGE or ID:PROFILE:IMAGE@TENANT, with the score 0."""
    return f"{LISTED}{status}:{kind}"


# API keys, by their ids


def used(quota: str, key_id: str) -> str:
    """Hash with an expiry: how much a key has used of a quota, by pieces of the time; see scripts/windows.lua."""
    return f"{USED}{quota}:{key_id}"


# Workers, by name; requests, by a hash of their idempotency key


def worker(name: str) -> str:
    """String with an expiry: a worker's heartbeat."""
    return f"strata:worker:{name}"


def idempotency(key: str) -> str:
    """String with an expiry: the state or the answer of the request with an idempotency key."""
    return f"strata:idempotency:{key}"

"""The forms of ids that become part of a key in Redis or of a path in the store.

A caller can send any text as an id, and anyone can put a file with any name into the store. So no key and no path is
made of an id before one of these functions has looked at it.
"""

from __future__ import annotations

import re

_JOB = re.compile(r"[0-9a-z]{1,64}")  # those of `new_job_id` are 22 hexadecimal digits
_CREATED = re.compile(r"[0-9a-f]{12}")  # with which those of `new_job_id` begin: milliseconds since 1970
_LAST = 253_402_300_799.0  # seconds since 1970 at the end of the year 9999, the last one of Python's dates
_HASH = re.compile(r"[0-9a-f]{1,64}")
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

DEFAULT_TENANT = "default"  # to whom belongs what was made without a key, or before there were tenants


def is_job_id(text: str) -> bool:
    """Whether a text has the form of a job's id: at most 64 of the digits and lower-case letters of ASCII."""
    return _JOB.fullmatch(text) is not None


def checked_job_id(text: str) -> str:
    """The text itself. Raises ValueError if it has not the form of a job's id: callers must have checked it."""
    if not is_job_id(text):
        raise ValueError(f"{text[:80]!r} is not the id of a job")
    return text


def created_at(job_id: str) -> float:
    """When a job was created, in seconds since 1970, from its id; 0 for an id that does not begin with a time."""
    milliseconds = _CREATED.match(job_id)
    seconds = int(milliseconds[0], 16) / 1000 if milliseconds else 0.0
    return seconds if seconds <= _LAST else 0.0


def is_hash(text: str) -> bool:
    """Whether a text has the form of a fingerprint or of a shard's identity: at most 64 hexadecimal digits."""
    return _HASH.fullmatch(text) is not None


def is_tenant(text: str) -> bool:
    """Whether a text can be the name of a tenant: lower-case letters, digits and `-`, at most 63 characters."""
    return _TENANT.fullmatch(text) is not None

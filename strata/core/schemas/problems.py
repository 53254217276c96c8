"""Problem details (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ProblemEntry(BaseModel):
    """One fault of a request: its kind, where it is, as `["body", "input", "shards"]`, and what is wrong."""

    model_config = ConfigDict(extra="allow")
    type: str = ""
    location: list[str] = []
    message: str = ""


class Problem(BaseModel):
    """RFC 9457 problem details; `type` is stable and documented in docs/problems.md."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemEntry] | None = None

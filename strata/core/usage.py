"""What work costs: a worker's time, tokens as model servers count them, and money if a profile has prices."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MOST = 2**40  # maximum count of tokens or requests; a larger number is an error
MILLION = 1_000_000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(_Frozen):
    """Tokens read and written, and requests sent. A request without a response counts with its upper bound."""

    prompt_tokens: int = Field(default=0, ge=0, le=MOST)
    completion_tokens: int = Field(default=0, ge=0, le=MOST)
    requests: int = Field(default=0, ge=0, le=MOST)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            requests=self.requests + other.requests,
        )

    def __mul__(self, times: int) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens * times,
            completion_tokens=self.completion_tokens * times,
            requests=self.requests * times,
        )


class Cost(_Frozen):
    """Tokens of both kinds, and money in millionths of the currency of the profile's prices (0 if it has none)."""

    tokens: int = Field(default=0, ge=0)
    money: int = Field(default=0, ge=0)

    def __add__(self, other: Cost) -> Cost:
        return Cost(tokens=self.tokens + other.tokens, money=self.money + other.money)

    def within(self, other: Cost) -> bool:
        """Whether both its tokens and its money are at most those of `other`."""
        return self.tokens <= other.tokens and self.money <= other.money


class Bill(_Frozen):
    """The cost of a chunk's work, and the job that paid. Stored in the footer of the part and in the job's ledger.

    entry: its name in the ledger, so that a bill which is recorded twice counts once. doubt: an upper bound of the
    amount beyond `cost` that interrupted work may have spent.
    """

    job: str
    entry: str
    usage: Usage = Usage()
    cost: Cost = Cost()
    doubt: Cost = Cost()


class Work(_Frozen):
    """What one chunk took of a worker. Stored in the footer of its part, from which other chunks are estimated.

    images: how many were not copied from earlier results. Seconds of the clock: computing them, without single images
    that came between; decoding: those of the first micro-batch, with nothing beside it; writing: the part of the
    chunk before and telling its end, 0 for the first one. first: no chunk came before with these models in the
    process, so that its time is that of a beginning too; loading: the seconds that the models took before. device:
    the GPU by its name, or `cpu`.
    """

    images: int = Field(ge=0)
    computing: float = Field(ge=0)
    decoding: float = Field(default=0.0, ge=0)
    writing: float = Field(default=0.0, ge=0)
    first: bool = False
    loading: float | None = None
    device: str = "cpu"

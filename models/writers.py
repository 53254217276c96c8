"""Writers: the stages that write texts, and the one way from their texts to a record, through the guards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from models.base import Stage
from models.guards import Asked, Guarded, guarded
from models.items import CaptionRequest, ComposeRequest, Failure, Rejection, Written
from strata.core import Usage
from strata.telemetry import COUNTERS

Item = TypeVar("Item")
VARIATION = 0.7  # temperature of a second try
log = logging.getLogger(__name__)


class WriterStage(Stage[Item, str]):
    """A stage that writes texts. A result of the type Written says whether its end is missing.

    variation: the temperature of a second try, or 0 for a first one.
    """

    variation: float = 0.0

    @property
    def varies(self) -> bool:
        """Whether a second text can differ from the first."""
        return True

    @property
    def heeds_errors(self) -> bool:
        """Of a composer: whether a request with errors can give another text than one without, as it writes freely."""
        return False

    @property
    def language(self) -> str:
        """The language of its texts, as an ISO 639-1 code."""
        return "en"

    def asked(self, item: Item) -> Asked | None:
        """What the text of an item is asked for; None if nothing is asked, and its text is empty."""
        return Asked("phrase" if isinstance(item, CaptionRequest) and item.kind == "crop" else "text")

    def run_again(self, batch: Sequence[Item]) -> list[str | Failure]:
        """As `run`, at another temperature, for items whose first texts were rejected."""
        self.variation = VARIATION
        try:
            return self.run(batch)
        finally:
            self.variation = 0.0


CaptionerStage = WriterStage[CaptionRequest]
ComposerStage = WriterStage[ComposeRequest]


def write(stage: WriterStage[Any], items: Sequence[Any]) -> list[str | Failure]:
    """The texts of items, cleaned and judged by the guards; a Rejection where two texts were rejected.

    The usage of the stage is then that of both tries. Raises what `Stage.run` raises.
    """
    asked = [stage.asked(item) for item in items]
    results = [_judged(stage, result, asks) for result, asks in zip(stage.run(items), asked, strict=True)]
    # once more for those that were rejected; the second text counts, whatever becomes of it
    again = [i for i, result in enumerate(results) if isinstance(result, Rejection)] if stage.varies else []
    if again:
        usage = list(stage.usage)
        second = stage.run_again([items[i] for i in again])
        for place, (i, result) in enumerate(zip(again, second, strict=True)):
            results[i] = _judged(stage, result, asked[i])
            if usage:
                usage[i] += stage.usage[place] if stage.usage else Usage()
        stage.usage = usage
        log.info("%s: %d of %d texts were rejected and written again", stage.name, len(again), len(items))
    return results


def _judged(stage: WriterStage[Any], result: str | Failure, asked: Asked | None) -> str | Failure:
    if isinstance(result, Failure):
        return result
    cut = isinstance(result, Written) and result.cut
    found = guarded(result, asked, cut) if asked else Guarded("")
    if found.rejected is None:
        return found.text
    reason = found.rejected.replace(" ", "_")
    COUNTERS.add("strata_guard_rejections", stage.name, reason)
    return Rejection(stage.name, f"{stage.name}_{reason}", found.reason)

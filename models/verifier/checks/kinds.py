"""The check of each kind of claim: supported, contradicted, or judged by nothing."""

from __future__ import annotations

from dataclasses import replace

from models.verifier.checks.attributes import check_attribute
from models.verifier.checks.counts import check_count
from models.verifier.checks.quotations import check_quotation
from models.verifier.checks.relations import check_relation
from models.verifier.checks.settings import check_setting
from models.verifier.checks.things import check_thing
from models.verifier.checks.verdicts import Verdict, denied
from models.verifier.claims.nouns import is_visible
from models.verifier.claims.statements import Statement
from models.verifier.entities import Facts
from strata.core import ClaimKind, CutReason


def verdict_of(statement: Statement, facts: Facts) -> Verdict:
    """The verdict on one claim."""
    match statement.kind:
        case "thing":
            return check_thing(statement, facts)
        case "attribute":
            return check_attribute(statement, facts)
        case "count":
            verdict = check_count(statement, facts)
            return denied(verdict, "wrong_count") if statement.denied else verdict
        case "relation":
            return check_relation(statement, facts)
        case "quote":
            return check_quotation(statement, facts)
        case "setting":
            return check_setting(statement, facts)


def strict(verdict: Verdict, statement: Statement) -> Verdict:
    """The verdict of a strict profile: what nothing supports is cut too, unless it is nothing that can be seen."""
    kind, phrase = statement.kind, statement.phrase
    if verdict.supported is not None or (phrase is not None and not is_visible(phrase.noun)):
        return verdict
    reasons: dict[ClaimKind, CutReason] = {
        "thing": "unsupported_object",
        "attribute": "wrong_attribute",
        "count": "wrong_count",
        "relation": "wrong_relation",
        "quote": "unread_text",
        "setting": "contradicts",
    }
    return replace(verdict, supported=False, reason=reasons[kind])

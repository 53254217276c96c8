"""The check of what is told to be absent: nobody can show that it is, an entry shows that it is there."""

from __future__ import annotations

from dataclasses import replace

from models.verifier.attributes import compared
from models.verifier.checks.naming import candidates, entities_named, entries_of, holds, own_attributes
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims.nouns import is_sign
from models.verifier.claims.statements import ANYTHING, TEXT, Statement
from models.verifier.entities import Facts


def check_absence(statement: Statement, facts: Facts) -> Verdict:
    """False if an entry with a box shows what is told to be absent; nothing else can judge."""
    phrase = statement.phrase
    assert phrase is not None
    if phrase.noun == ANYTHING:
        shown = (*entries_of([one for one in facts.entities if one.box is not None]), *facts.lines)
    elif phrase.noun == TEXT and not phrase.attributes:
        shown = _lines_on(statement, facts)
    else:
        found = [one for one in entities_named(phrase, facts) if one.box is not None]
        # "no red car": a car of another colour, or of none that is known, shows nothing
        found = [one for one in found if all(compared(word, one.words) for word in own_attributes(phrase))]
        if phrase.owner:
            owners = entities_named(replace(phrase, noun=phrase.owner, owner=""), facts)
            found = [one for one in found if any(holds(owner, one) for owner in owners)]
        shown = entries_of(found)
    return Verdict(False, "contradicts", tuple(dict.fromkeys(shown))) if shown else UNKNOWN


def _lines_on(statement: Statement, facts: Facts) -> tuple[str, ...]:
    """The lines of text on what is said to have none; all if that is the picture, or a sign without an entry."""
    if not statement.subjects:
        return tuple(facts.lines)
    carrier = statement.subjects[0]
    found = [one for one in candidates(carrier, facts) if one.box is not None]
    if not found:
        return tuple(facts.lines) if is_sign(carrier.noun) else ()
    texts = {text for one in found for text in one.texts}
    return tuple(name for name, line in facts.lines.items() if line in texts)

"""All claims of a sentence, by rules."""

from __future__ import annotations

from dataclasses import replace

from models.verifier.claims.absences import absences_in
from models.verifier.claims.holdings import holdings_in
from models.verifier.claims.positions import positions_in
from models.verifier.claims.predicates import predicates_in
from models.verifier.claims.quotations import quotations_in
from models.verifier.claims.statements import Statement
from models.verifier.claims.things import things_in
from models.verifier.structure import Structure


def statements_of(made: Structure) -> list[Statement]:
    """All claims of a sentence, in the order of its words."""
    quotes = list(quotations_in(made))
    # "the sign that says OPEN" is one of several signs
    carried = tuple((one.subjects[0], one.value) for one in quotes if one.subjects)
    positions = (replace(one, quotes=carried) for one in positions_in(made))
    things = (replace(one, quotes=carried) for one in things_in(made))
    found = [*things, *predicates_in(made), *absences_in(made), *positions, *holdings_in(made), *quotes]
    return sorted(found, key=lambda one: (one.start, one.end))

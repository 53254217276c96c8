"""The check of a thing: whether the evidence has what a noun phrase names."""

from __future__ import annotations

from dataclasses import replace

from models.verifier.checks.absences import check_absence
from models.verifier.checks.naming import entities_named, entries_of, has_with_it, narrowed, unsure_things
from models.verifier.checks.persons import ROLES, YOUNG, is_living, is_role, persons_in, uses
from models.verifier.checks.quotations import check_quotation
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims.nouns import BODY, is_carrier, is_sign, is_society, is_visible
from models.verifier.claims.statements import Statement
from models.verifier.entities import Facts, has_letters, letters_of
from models.verifier.lexicon import is_kind_of, is_part, is_part_of, verb_of
from models.verifier.phrases import NounPhrase

_SHORTEST = 4  # letters of a word that may stand for the end of another one


def check_thing(statement: Statement, facts: Facts) -> Verdict:
    """The verdict on a thing: whether an entry names it, or a part, a role or a text of what is there."""
    phrase = statement.phrase
    assert phrase is not None
    if phrase.negated:
        return check_absence(statement, facts)
    found = entities_named(phrase, facts)
    if found:
        return Verdict(True, None, entries_of(found))
    # "three musicians: a cellist, a violinist and a drummer": each is a claim of its own
    items = [check_thing(replace(statement, phrase=one, items=()), facts) for one in statement.items]
    if items and all(one.supported for one in items):
        return Verdict(True, None, tuple(dict.fromkeys(name for one in items for name in one.evidence)))
    # a narrower word than the entry's ("a poodle" for a dog), or a part of a thing that is there
    if narrowed(phrase, facts) or _is_part(phrase, facts) or _is_shortened(phrase.noun, facts):
        return UNKNOWN
    # a text that was read stands on something
    if (facts.lines and is_sign(phrase.noun) and not phrase.many) or _is_read(statement, facts):
        return UNKNOWN
    if is_society(phrase.noun) and persons_in(facts):
        return UNKNOWN
    if _is_known_role(statement, facts) or not is_visible(phrase.noun):
        return UNKNOWN
    # a model saw it, and was not sure; or a name has the word before its noun: "a chalkboard menu"
    if unsure_things(phrase, facts) or any(phrase.noun in one.words for one in facts.entities):
        return UNKNOWN
    # "Exit 25" and "Springfield" may be what a line of text says
    told = letters_of(statement.read) or (letters_of(phrase.noun) if statement.quotes else "")
    lines = tuple(name for name, line in facts.lines.items() if told and has_letters(line, told))
    return Verdict(True, None, lines) if lines else Verdict(False, "unsupported_object")


def _is_known_role(statement: Statement, facts: Facts) -> bool:
    """Whether a phrase names one of the persons by a role: by what is known of it, it may be this person.

    One person has a role if the text refers to somebody ("the spectator"), if what the person wears or holds fits an
    entry ("a mechanic in blue overalls"), or if the role is of a thing that is there ("a tennis player"); of several,
    as many must be there.
    """
    phrase = statement.phrase
    assert phrase is not None
    if phrase.noun in YOUNG and phrase.definite:
        return any(is_living(entity) for entity in (*facts.entities, *facts.told))
    if phrase.owned and is_kind_of(phrase.noun, "living thing"):
        # "their mother" is one of the animals or persons, if there are several
        return len([one for one in facts.entities if is_living(one)]) > 1
    if not is_role(phrase.noun):
        return False
    persons = persons_in(facts)
    # "the barber gives a customer a haircut": of two persons, one is told already
    if statement.object and (phrase.count or 1) == 1 and not phrase.many and len(persons) > 1:
        return True
    if phrase.definite or phrase.noun in ROLES:
        return bool(persons)
    if phrase.many or (phrase.count or 1) > 1:
        most = sum(2 if any(entry.many for entry in one.entries) else 1 for one in persons)
        return most >= 2 and (phrase.count or 0) <= most
    first = phrase.noun.partition(" ")[0] if " " in phrase.noun else "-"
    of_thing = any(first in entity.words for entity in (*facts.entities, *facts.told))
    return bool(persons) and (of_thing or any(has_with_it(one, phrase, facts) for one in persons))


def _is_read(statement: Statement, facts: Facts) -> bool:
    """Whether a phrase names what carries text, such as a sign, and the text that it is said to carry was read."""
    told = [text for carrier, text in statement.quotes if carrier == statement.phrase]
    return (
        statement.phrase is not None
        and is_carrier(statement.phrase.noun)
        and any(check_quotation(replace(statement, phrase=None, value=text), facts).supported for text in told)
    )


def _is_shortened(noun: str, facts: Facts) -> bool:
    """Whether a noun is the end of a name's word: "the board" for a blackboard."""
    names = (entry.noun for entity in (*facts.entities, *facts.told) for entry in entity.entries)
    return len(noun) >= _SHORTEST and any(name.endswith(noun) for name in names)


def _is_part(phrase: NounPhrase, facts: Facts) -> bool:
    """Whether a phrase names a part of a thing: a part of a body, or what WordNet has as a part, a car's wheel."""
    # "his lapel" is of his coat, and "a bicycle" is a cyclist's
    if phrase.owned and is_part(phrase.noun):
        return True
    if any(uses(entry.noun, phrase.noun) for entity in facts.entities for entry in entity.entries):
        return True
    wholes = [entry.noun for entity in (*facts.entities, *facts.told) for entry in entity.entries]
    last = phrase.noun.rpartition(" ")[2]
    # "a plant in a pot" is a potted plant
    if any(verb_of(word) == last for entity in facts.entities for word in entity.words if word != last):
        return True
    # "the motorcycle's tank": what a thing has is small or hidden
    if phrase.owner and not is_kind_of(phrase.noun, "living thing"):
        owners = entities_named(replace(phrase, noun=phrase.owner), facts)
        if owners and not any(map(is_living, owners)):
            return True
    return bool(wholes) and (last in BODY or any(is_part_of(last, whole) for whole in wholes))

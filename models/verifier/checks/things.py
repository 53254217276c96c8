"""The check of a thing: whether the evidence has what a noun phrase names."""

from __future__ import annotations

from dataclasses import replace

from models.verifier.checks.naming import entities_named, entries_of, narrowed, unsure_things
from models.verifier.checks.persons import is_known_role, is_living
from models.verifier.checks.quotations import check_quotation
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims import Statement, is_visible
from models.verifier.entities import Facts, has_letters, letters_of
from models.verifier.lexicon import is_kind_of, is_part_of, verb_of
from models.verifier.phrases import NounPhrase

_BODY = frozenset(
    "head face eye ear nose mouth hair beard arm hand finger leg foot tail paw wing beak fur feather horn neck back "
    "body skin shoulder knee tooth tongue mane hoof claw trunk shell petal stem leaf branch root roof handle sleeve "
    "collar strap lid".split()
)
# nouns of what can carry text, besides what is a kind of them
_CARRIERS = (
    "sign", "signboard", "label", "tag", "poster", "banner", "placard", "board", "plaque", "sticker", "screen",
    "display", "plate", "menu", "logo", "signage",
)  # fmt: skip


def check_thing(statement: Statement, facts: Facts) -> Verdict:
    """The verdict on a thing: whether an entry names it, or a part, a role or a text of what is there."""
    phrase = statement.phrase
    assert phrase is not None
    found = entities_named(phrase, facts)
    if phrase.negated:
        # nobody can show that something is absent; an entry shows that it is there
        with_box = [entity for entity in found if entity.box is not None]
        return Verdict(False, "contradicts", entries_of(with_box)) if with_box else UNKNOWN
    if found:
        return Verdict(True, None, entries_of(found))
    # a narrower word than the entry's ("a poodle" for a dog), or a part of a thing that is there
    if narrowed(phrase, facts) or _is_part(phrase, facts):
        return UNKNOWN
    if is_known_role(phrase, facts) or _is_read(statement, facts) or not is_visible(phrase.noun):
        return UNKNOWN
    # a model saw it, and was not sure; or a name has the word before its noun: "a chalkboard menu"
    if unsure_things(phrase, facts) or any(phrase.noun in one.words for one in facts.entities):
        return UNKNOWN
    # "Exit 25" and "Springfield" may be what a line of text says
    told = letters_of(statement.read)
    lines = tuple(name for name, line in facts.lines.items() if told and has_letters(line, told))
    return Verdict(True, None, lines) if lines else Verdict(False, "unsupported_object")


def _is_read(statement: Statement, facts: Facts) -> bool:
    """Whether a phrase names what carries text, such as a sign, and the text that it is said to carry was read."""
    told = [text for carrier, text in statement.quotes if carrier == statement.phrase]
    return (
        statement.phrase is not None
        and any(is_kind_of(statement.phrase.noun, carrier) for carrier in _CARRIERS)
        and any(check_quotation(replace(statement, phrase=None, value=text), facts).supported for text in told)
    )


def _is_part(phrase: NounPhrase, facts: Facts) -> bool:
    """Whether a phrase names a part of a thing: a part of a body, or what WordNet has as a part, a car's wheel."""
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
    return bool(wholes) and (last in _BODY or any(is_part_of(last, whole) for whole in wholes))

"""Things and surroundings that a sentence names, with their attributes and counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from models.verifier.attributes import is_attribute
from models.verifier.claims.absences import EXCEPT
from models.verifier.claims.denials import is_denied_number, is_existential, missing_in, scope_of
from models.verifier.claims.nouns import BACKDROPS, BODY, is_carrier, is_empty, is_setting
from models.verifier.claims.positions import positions_in
from models.verifier.claims.predicates import predicates_in
from models.verifier.claims.statements import Statement
from models.verifier.claims.surroundings import around_of
from models.verifier.lexicon import is_kind_of, is_part, lexicon, verb_of
from models.verifier.phrases import NounPhrase
from models.verifier.structure import Structure
from strata.core import ClaimKind

# what follows "of" after these is felt, not seen: "a sense of calm"
_FEELINGS = frozenset("sense feeling touch hint air atmosphere mood sign note impression moment feel state".split())
# of which the object is whom a text speaks to
_ADDRESSING = frozenset(
    "warn remind urge invite tell ask direct welcome inform advise instruct encourage greet".split()
)
_IDIOMS = frozenset("on at in".split())  # before a noun without an article
_OWNERS = frozenset("person man woman boy girl child kid baby lady gentleman".split())  # persons without a role
_LIGHT_VERBS = frozenset("take make have give enjoy do keep share".split())  # of which the noun is the verb


def things_in(made: Structure) -> Iterator[Statement]:
    """A thing or a setting for each noun phrase, with its attributes and its count."""
    missing, denied = missing_in(made), _denied_of(made)
    for told in made.phrases:
        if not (told.pronoun or told.negated or told in missing):
            yield from _owner_in(told, made)
    for told in made.phrases:
        if told.pronoun or told in denied or (told not in missing and scope_of(made, told) == "open"):
            continue
        phrase = replace(told, negated=True) if told in missing else told
        if is_denied_number(made, told):
            number = replace(told, negated=False)
            yield Statement("count", told.start, told.end, number, str(told.count), denied=True)
            continue
        if (is_empty(phrase.noun) and phrase.noun not in BACKDROPS) or _is_unseen(phrase, made):
            continue
        if phrase.negated and _is_excepted(phrase, made):
            continue
        items = _items(phrase, made)
        kind: ClaimKind = "setting" if is_setting(phrase.noun) else "thing"
        clause = made.clause_of(phrase.start)
        governed = clause.verb is not None and phrase.start > clause.verb and told not in clause.subjects
        read = _capitals(phrase, made)
        around = around_of(made, phrase) if kind == "setting" else ""
        yield Statement(kind, phrase.start, phrase.end, phrase, read=read, items=items, object=governed, around=around)
        # the colour of what is not there is no claim
        if phrase.noun in BACKDROPS or phrase.negated:
            continue
        for at in range(phrase.start, phrase.end):
            word = made.tokens[at].lower
            if made.tokens[at].tag == "ADJ" and is_attribute(word):
                yield Statement("attribute", at, phrase.end, phrase, word)
        # "another dog" is the second one
        another = made.tokens[phrase.start].lower == "another"
        if phrase.count is not None or phrase.many or another:
            counted = replace(phrase, attributes=(), carried=()) if another else _as_counted(phrase, made)
            part = _is_part(phrase, made) or _is_one_of_two(phrase, made)
            count = str(phrase.count or 0)
            yield Statement("count", phrase.start, phrase.end, counted, count, part=part, items=items)


def _denied_of(made: Structure) -> list[NounPhrase]:
    """The negated phrases of which a sentence denies no more than a place or an attribute: "no cup is red"."""
    subjects = [one for clause in made.clauses for one in clause.subjects if one.negated]
    if not subjects:
        return []
    told = [one for one in positions_in(made) if one.names or not all(is_setting(other.noun) for other in one.others)]
    told += list(predicates_in(made))
    known = {one for statement in told for one in (statement.phrase, *statement.subjects)}
    # "neither the cat nor the dog moves": both are there
    return [one for one in subjects if one in known or (one.definite and not is_existential(made, one))]


def _owner_in(phrase: NounPhrase, made: Structure) -> Iterator[Statement]:
    """The owner of "the dog's tail" as a thing, if it is a person or an animal that has to be there.

    A part of a body has its owner with it, and "the dog's bowl" tells of a dog; "a child's bicycle" is a kind of
    bicycle, and so is what belongs to a role: "the driver's seat".
    """
    animal = bool(phrase.owner) and is_kind_of(phrase.owner, "animal")
    if not animal and not is_kind_of(phrase.owner, "person"):
        return
    words = [token.lower.replace("’s", "'s").removesuffix("'s") for token in made.tokens[phrase.start : phrase.end]]
    part = phrase.noun in BODY or is_part(phrase.noun)
    if part or (phrase.definite and phrase.owner in words and (animal or phrase.owner in _OWNERS)):
        owner = replace(
            phrase, noun=phrase.owner, owner="", owned=False, attributes=(), modifiers=(), count=None, many=False
        )
        yield Statement("thing", phrase.start, phrase.end, replace(owner, carried=(), worn=()))


def _is_excepted(phrase: NounPhrase, made: Structure) -> bool:
    """Whether "no one but", "nobody except" or "no other" leaves something out."""
    following = made.tokens[phrase.end :]
    rest = any(token.lower in EXCEPT for token in made.tokens)
    return rest or (bool(following) and following[0].lower in ("but", "else")) or "other" in phrase.modifiers


def _items(phrase: NounPhrase, made: Structure) -> tuple[NounPhrase, ...]:
    """What is listed after a colon or in apposition of things that have a number: "two pets: a cat and a dog"."""
    if (phrase.count or 1) < 2 and not phrase.many:
        return ()
    for at in range(phrase.end, len(made.tokens)):
        apposed = made.tokens[at].tag == "COMMA" and at == phrase.end
        if made.tokens[at].text not in (":", "—", "–") and not apposed:
            continue
        # of several numbers the nearest one is meant
        if any(phrase.end <= one.start < at and (one.count or 1) > 1 for one in made.phrases):
            return ()
        later = (one for one in made.phrases if one.start > at)
        listed = [one for one in later if made.tokens[one.start - 1].tag not in ("PREP", "PART")]
        first = bool(listed) and all(token.tag == "DET" for token in made.tokens[at + 1 : listed[0].start])
        number = sum(one.count or 1 for one in listed)
        return tuple(listed) if first and number == phrase.count and len(listed) > 1 else ()
    return ()


def _as_counted(phrase: NounPhrase, made: Structure) -> NounPhrase:
    """A phrase with what is told of it after its verb: "two cars are red" counts the red ones."""
    told = [one.value for one in predicates_in(made) if one.phrase == phrase and not one.denied]
    # "the bikes are red, white and black": each has one of the colours
    return replace(phrase, attributes=(*phrase.attributes, *told)) if len(told) == 1 and not phrase.share else phrase


def _is_one_of_two(phrase: NounPhrase, made: Structure) -> bool:
    """Whether the sentence tells of another one besides: "one car is red, and the other is blue"."""
    following = {token.lower for token in made.tokens[phrase.end :]}
    return phrase.count == 1 and bool(following & {"other", "another", "second", "others"})


def _capitals(phrase: NounPhrase, made: Structure) -> str:
    """The words of a phrase if they begin with capitals, as names and text of the picture do: "Exit 25"; else ""."""
    words = [token for token in made.tokens[phrase.start : phrase.end + 1] if token.tag != "DET"]
    named = [token.text for token in words if token.text[0].isupper() or token.text.isdecimal()]
    whole = named and words[0].text == named[0] and words[0].start > 0
    return " ".join(named) if whole else ""


def _is_part(phrase: NounPhrase, made: Structure) -> bool:
    """Whether a phrase is some of more things: "the two boys on the left", "two of the boys"."""
    if phrase.some:
        return True
    after = made.tokens[phrase.end : phrase.end + 1]
    return phrase.definite and bool(after) and after[0].tag in ("PREP", "PART", "THAT")


def _is_unseen(phrase: NounPhrase, made: Structure) -> bool:
    """Whether a phrase is no thing of the picture: in an idiom, the camera, what is felt, whom a sign speaks to."""
    before = made.tokens[phrase.start - 1].lower if phrase.start else ""
    # "on display", "at work", "in bed", and what is abstract first: "for safety", "keeps watch"
    alone = phrase.end - phrase.start == 1 and not phrase.many
    if alone and (before in _IDIOMS or lexicon().senses(phrase.noun)[:1] in ((0,), ())) and phrase.start:
        return True
    # "the girl, not the boy"
    if before == "not" and phrase.definite:
        return True
    # "takes a ride", "having a conversation"
    if verb_of(before) in _LIGHT_VERBS and (lexicon().senses(phrase.noun) or (0,))[0] == 0 and verb_of(phrase.noun):
        return True
    if before == "of" and phrase.start > 1 and made.tokens[phrase.start - 2].lower in _FEELINGS:
        return True
    # "a sign warns visitors", "the destination" before its name
    written = any(is_carrier(one.noun) for one in made.clause_of(phrase.start).subjects)
    if verb_of(before) in _ADDRESSING and (written or any(token.tag == "QUOTE" for token in made.tokens)):
        return True
    following = made.tokens[phrase.end].tag if phrase.end < len(made.tokens) else ""
    if following == "QUOTE" and phrase.definite and not is_kind_of(phrase.noun, "living thing"):
        return True
    return phrase.noun == "camera" and phrase.definite and before in ("at", "to", "toward", "towards", "for")

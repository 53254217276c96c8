"""The claims of a sentence, by rules: things, attributes, counts, relations, quotations and settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from models.verifier.attributes import is_attribute
from models.verifier.lexicon import is_compound, is_kind_of, is_object, lexicon, verb_of
from models.verifier.phrases import PICTURES, NounPhrase
from models.verifier.places import relation_at
from models.verifier.structure import Structure
from models.verifier.words import Token
from strata.core import ClaimKind

# nouns that name nothing that could be there or not
_EMPTY = PICTURES | frozenset(
    "thing object item element subject side part half corner edge area portion section top bottom left right centre "
    "center middle front back foreground distance way view sense feeling mood atmosphere style theme setting detail "
    "look appearance impression effect contrast focus presence position arrangement design pattern colour color shade "
    "hue tone texture shape outline size kind type sort variety number lot bit rest beauty charm moment time day "
    "everything nothing viewer angle perspective caption description profile letter word text message writing "
    "lettering inscription font width height line row pose expression direction addition layout surface space "
    "combination mix blend touch hint hand use attention one other others whole total name scenery activity place "
    "high low home".split()
)
# what follows "of" after these is felt, not seen: "a sense of calm"
_FEELINGS = frozenset("sense feeling touch hint air atmosphere mood sign note impression moment feel state".split())
_LIGHT_VERBS = frozenset("take make have give enjoy do keep share".split())  # of which the noun is the verb
_PAINTED = frozenset("painted coloured colored dyed".split())
_WRITTEN = frozenset("word words text letters lettering inscription message writing name title slogan label".split())
_SAYING = frozenset(
    "say read spell label title mark state show display indicate announce advertise warn list bear feature mention "
    "write print paint engrave inscribe carry".split()
)  # basic forms
_CAPITALS = re.compile(r"[A-Z0-9][A-Z0-9&!?.'-]*")
_SETTINGS = frozenset("background backdrop".split())


@dataclass(frozen=True)
class Statement:
    """A claim of a sentence, not yet checked. start, end: its tokens.

    phrase: the noun phrase that it is about, None for a quotation alone. value: of an attribute its word, of a count
    the number (0: more than one), of a relation its name, of a quotation its letters; names: of a place.
    others: what the second phrase of a relation may stand for. subjects: those that a relation or place may be told of;
    every: it is told of all. quotes: of a relation, the phrases of its sentence that carry text, with the text.
    part: a count of some of more things. denied: an attribute that the thing has not, by the sentence. read: whether
    the words may be text of the picture, as they have capitals.
    """

    kind: ClaimKind
    start: int
    end: int
    phrase: NounPhrase | None = None
    value: str = ""
    names: tuple[str, ...] = ()
    others: tuple[NounPhrase, ...] = ()
    subjects: tuple[NounPhrase, ...] = ()
    every: bool = False
    quotes: tuple[tuple[NounPhrase, str], ...] = ()
    part: bool = False
    read: str = ""
    denied: bool = False


def statements_of(made: Structure) -> list[Statement]:
    """All claims of a sentence, in the order of its words."""
    quotes = list(_quotes(made))
    # "the sign that says OPEN" is one of several signs
    carried = tuple((one.subjects[0], one.value) for one in quotes if one.subjects)
    positions = (replace(one, quotes=carried) for one in _positions(made))
    things = (replace(one, quotes=carried) for one in _things(made))
    found = [*things, *_predicates(made), *positions, *quotes]
    return sorted(found, key=lambda one: (one.start, one.end))


def is_empty(noun: str) -> bool:
    """Whether a noun tells of the picture or of nothing in particular: "view", "mood", "thing"."""
    return noun in _EMPTY or (noun.rpartition(" ")[2] in _EMPTY and not is_compound(noun))


def is_visible(noun: str) -> bool:
    """Whether a noun names something that could be seen, by WordNet."""
    return is_object(noun if any(lexicon().senses(noun)) else noun.rpartition(" ")[2])


def is_setting(noun: str) -> bool:
    """Whether a noun names a place or surroundings, such as "beach" and "sky"."""
    last = noun.rpartition(" ")[2]
    return last in SETTINGS or (last not in _THINGS and any(is_kind_of(noun, wider) for wider in _PLACES))


# what WordNet has above the names of places, and names below them that are things of their own
_PLACES = (
    "geographical area", "tract", "land", "geological formation", "body of water", "road", "thoroughfare",
    "paved surface", "passage",
)  # fmt: skip
_THINGS = frozenset("bank goal post".split())


SETTINGS = _SETTINGS | frozenset(
    "beach street road city town village park forest woods field meadow lawn grass garden mountain hill "
    "valley desert ocean sea lake river water sky snow ground floor wall room kitchen bathroom bedroom office "
    "restaurant cafe market store shop school classroom stadium airport station harbor harbour pier bridge "
    "sidewalk pavement path trail parking lot yard farm barn zoo museum library church hall corridor stage "
    "studio court runway track coast shore shoreline countryside landscape skyline horizon night sunset "
    "sunrise dusk dawn evening morning daylight sunlight sunshine sun sunny cloud rain fog shade shadow sand "
    "wind air light lighting soil dirt breeze wave glow ray weather reflection surroundings environment "
    "vegetation greenery foliage ceiling counter interior exterior outdoors indoors workspace terrain tarmac".split()
)


def _things(made: Structure) -> Iterator[Statement]:
    """A thing or a setting for each noun phrase, with its attributes and its count."""
    for phrase in made.phrases:
        if phrase.pronoun:
            continue
        if (is_empty(phrase.noun) and phrase.noun not in _SETTINGS) or _is_unseen(phrase, made):
            continue
        kind: ClaimKind = "setting" if is_setting(phrase.noun) else "thing"
        yield Statement(kind, phrase.start, phrase.end, phrase, read=_capitals(phrase, made))
        if phrase.noun in _SETTINGS:
            continue
        for at in range(phrase.start, phrase.end):
            word = made.tokens[at].lower
            if made.tokens[at].tag == "ADJ" and is_attribute(word):
                yield Statement("attribute", at, phrase.end, phrase, word)
        # "another dog" is the second one
        another = made.tokens[phrase.start].lower == "another"
        if (phrase.count is not None or phrase.many or another) and not phrase.negated:
            counted = replace(phrase, attributes=(), carried=()) if another else _as_counted(phrase, made)
            part = _is_part(phrase, made) or _is_one_of_two(phrase, made)
            yield Statement("count", phrase.start, phrase.end, counted, str(phrase.count or 0), part=part)


def _as_counted(phrase: NounPhrase, made: Structure) -> NounPhrase:
    """A phrase with what is told of it after its verb: "two cars are red" counts the red ones."""
    told = [one.value for one in _predicates(made) if one.phrase == phrase and not one.denied]
    return replace(phrase, attributes=(*phrase.attributes, *told)) if told and not phrase.share else phrase


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
    """Whether a phrase is some of more things: "the two boys on the left"."""
    after = made.tokens[phrase.end : phrase.end + 1]
    return phrase.definite and bool(after) and after[0].tag in ("PREP", "PART", "THAT")


def _is_unseen(phrase: NounPhrase, made: Structure) -> bool:
    """Whether a phrase is the camera that somebody looks at, or what there is a sense of."""
    before = made.tokens[phrase.start - 1].lower if phrase.start else ""
    # "takes a ride", "having a conversation"
    if verb_of(before) in _LIGHT_VERBS and (lexicon().senses(phrase.noun) or (0,))[0] == 0 and verb_of(phrase.noun):
        return True
    if before == "of" and phrase.start > 1 and made.tokens[phrase.start - 2].lower in _FEELINGS:
        return True
    return phrase.noun == "camera" and phrase.definite and before in ("at", "to", "toward", "towards", "for")


def _predicates(made: Structure) -> Iterator[Statement]:
    """Attributes after what they are told of: "the car is red", "which appears blue", "a cat, white in color"."""
    for at, token in enumerate(made.tokens):
        if token.tag != "ADJ" or not is_attribute(token.lower) or any(p.start <= at < p.end for p in made.phrases):
            continue
        subject = _told_of(made, at)
        if subject is not None and not is_empty(subject.noun):
            negated = any(_denies(one) for one in made.tokens[max(subject.end, at - 2) : at])
            denied = negated != (subject.share == "none")
            yield Statement("attribute", at, at + 1, subject, token.lower, denied=denied)


def _denies(token: Token) -> bool:
    return token.tag == "NOT" or token.lower.endswith(("n't", "n’t"))


def _told_of(made: Structure, at: int) -> NounPhrase | None:
    """The noun phrase that an attribute after a verb, a comma or a participle is told of; None if there is none."""
    before = at - 1
    while before >= 0 and made.tokens[before].tag in ("ADV", "JOIN", "ADJ", "NOT"):
        before -= 1
    earlier = [phrase for phrase in made.phrases if phrase.end <= before]
    if before < 0 or made.tokens[before].tag not in ("AUX", "COMMA", "PART") or not earlier:
        return None
    nearest, clause = earlier[-1], made.clause_of(at)
    beside = nearest.end == before or (nearest.end == before - 1 and made.tokens[nearest.end].tag == "COMMA")
    if made.tokens[before].tag != "AUX":
        # "a barn, painted red": right after the noun phrase
        return nearest if beside or made.tokens[before].lower in _PAINTED else None
    # "which is green" is told of what stands before "which"
    if any(one.tag == "THAT" for one in made.tokens[nearest.end : at]):
        return nearest
    return clause.subjects[-1] if clause.subjects else nearest if nearest.start >= clause.start else None


def _positions(made: Structure) -> Iterator[Statement]:
    """Places in the picture, and relations of two noun phrases."""
    taken = {at for place in made.places for at in range(place.start, place.end)}
    for place in made.places:
        subjects, every = _attached(made, place.start)
        if place.names and subjects:
            yield Statement(
                "relation", place.start, place.end, subjects[0], names=place.names, subjects=subjects, every=every
            )
    at = 0
    while at < len(made.tokens):
        found = relation_at(made.tokens, at) if at not in taken else None
        if found is None or made.tokens[at].tag not in ("PREP", "ADJ", "ADV", "NOUN"):
            at += 1
            continue
        name, after = found
        others = tuple(phrase for phrase in made.phrases if phrase.start == after)
        subjects, every = _attached(made, at)
        if others and subjects and name not in ("with", "other") and not is_empty(others[0].noun):
            end = others[0].end
            yield Statement("relation", at, end, subjects[0], name, others=others, subjects=subjects, every=every)
        at = after


def _attached(made: Structure, at: int) -> tuple[tuple[NounPhrase, ...], bool]:
    """The noun phrases that a phrase at a token may belong to, and whether it is told of all of them.

    After a verb that is told of its subjects; else of the phrase right before, or perhaps of the subject.
    """
    clause = made.clause_of(at)
    before = [phrase for phrase in made.phrases if clause.start <= phrase.start and phrase.end <= at]
    if not before:
        # "On the left, there is a dog"
        return clause.subjects[:1], False
    nearest = before[-1]
    between = made.tokens[nearest.end : at]
    if all(token.tag in ("QUOTE", "ADV", "PART", "COMMA") for token in between) and nearest not in clause.subjects:
        return (nearest, *clause.subjects), False
    subjects = tuple(phrase for phrase in clause.subjects if phrase.end <= at)
    if nearest in subjects and clause.verb is not None and nearest.end <= clause.verb < at:
        return subjects, True
    # of a list after "there are" the place may be told of the last alone, or of all
    return tuple(dict.fromkeys([*reversed(subjects), nearest])), False


def _quotes(made: Structure) -> Iterator[Statement]:
    """Quoted text, and words in capitals after a word such as "says"."""
    for at, token in enumerate(made.tokens):
        if token.tag == "QUOTE":
            inner = token.text[1:-1].strip()
            # single quotes stand around names and doubtful words too: only letters after such a word are text
            told = token.text[0] in '"“„«' or _is_told(made, at)
            if inner and told:
                yield _quote(made, at, inner)
        elif at and _CAPITALS.fullmatch(token.text) and len(token.text) > 1 and _is_told(made, at):
            yield _quote(made, at, token.text)


def _quote(made: Structure, at: int, letters: str) -> Statement:
    """A quotation. Its subject is what it stands on, or the "text" or "word" that quotes it; its phrase the first."""
    carrier = _carrier(made, at)
    subjects = () if carrier is None else (carrier,)
    return Statement(
        "quote", at, at + 1, None if carrier is None or is_empty(carrier.noun) else carrier, letters, subjects=subjects
    )


def _is_told(made: Structure, at: int) -> bool:
    before = {token.lower for token in made.tokens[max(0, at - 3) : at]}
    return bool(before & _WRITTEN or {verb_of(word) for word in before} & _SAYING)


def _carrier(made: Structure, at: int) -> NounPhrase | None:
    """The thing that a quotation stands on, if the sentence says so: 'a sign that says "OPEN"'."""
    before = [phrase for phrase in made.phrases if phrase.end <= at]
    if not before or not _is_told(made, at):
        return None
    # the main verb tells it of the subject: "the sign beside the door says"
    clause, nearest = made.clause_of(at), before[-1]
    relative = any(token.tag == "THAT" for token in made.tokens[nearest.end : at])
    if clause.verb is not None and nearest.end <= clause.verb < at and clause.subjects and not relative:
        nearest = clause.subjects[-1]
    return nearest

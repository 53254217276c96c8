"""The check of each claim against a record's evidence: supported, contradicted, or judged by nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import product

from models.verifier.attributes import compared, group_of, shown
from models.verifier.claims import Statement, is_visible
from models.verifier.entities import Entity, Entry, Facts, has_letters, letters_of
from models.verifier.lexicon import is_kind_of, is_part_of, lexicon, lineage, singular, verb_of
from models.verifier.phrases import NounPhrase
from models.verifier.places import lies, related
from strata.core import Box, ClaimKind, CutReason

_BODY = frozenset(
    "head face eye ear nose mouth hair beard arm hand finger leg foot tail paw wing beak fur feather horn neck back "
    "body skin shoulder knee tooth tongue mane hoof claw trunk shell petal stem leaf branch root roof handle sleeve "
    "collar strap lid".split()
)
# roles of persons, with the words that tell them
_ROLES: Mapping[str, frozenset[str]] = {
    role: frozenset(words.split())
    for role, words in {
        "rider": "ride", "cyclist": "bicycle bike cycle", "biker": "bicycle bike motorcycle", "driver": "drive",
        "player": "play", "surfer": "surf surfboard", "skier": "ski skis", "snowboarder": "snowboard",
        "skateboarder": "skateboard", "swimmer": "swim", "runner": "run", "passenger": "ride", "walker": "walk",
    }.items()
}  # fmt: skip
_YOUNG = frozenset("baby adult calf cub youngster".split())  # of persons and animals: "a baby elephant"
# persons by sex and age, which a detector tells; all other nouns of persons are roles
_PERSONS = frozenset(
    "person people man woman boy girl child kid baby toddler infant lady gentleman guy individual human figure "
    "teenager male female".split()
)
# nouns of what can carry text, besides what is a kind of them
_CARRIERS = (
    "sign", "signboard", "label", "tag", "poster", "banner", "placard", "board", "plaque", "sticker", "screen",
    "display", "plate", "menu", "logo", "signage",
)  # fmt: skip
# parts that have the colour of the whole
_COVERS = frozenset(
    "fur coat wool hide skin feather plumage body hull exterior paint bodywork facade fabric upholstery petal "
    "frame".split()
)
# surroundings that a picture has one of; those of different rows exclude one another
_SCENES = (
    "beach, ocean, sea, coast, shore, shoreline, harbor, harbour, pier",
    "street, road, city, town, sidewalk, pavement, skyline, parking lot, highway, freeway, intersection, alley, "
    "downtown",
    "kitchen",
    "bathroom, restroom, washroom",
    "bedroom",
    "living room, lounge",
    "dining room",
    "office, classroom, school, library",
    "restaurant, cafe",
    "forest, woods, jungle",
    "desert",
    "stadium, court, arena",
    "farm, barn, field, meadow, pasture, grassland, savanna",
    "airport, runway, tarmac",
    "station",
    "church",
    "museum",
    "hospital",
    "gym",
    "corridor, hallway",
)
_SCENE_OF = {word: number for number, words in enumerate(_SCENES) for word in words.split(", ")}
# pairs of rows of which one may lie in the other: a field in a stadium, a hall of a school
_ALLOWED = (("stadium", "field"), ("hospital", "corridor"), ("office", "corridor"), ("museum", "corridor"),
            ("airport", "corridor"), ("station", "corridor"), ("airport", "restaurant"), ("museum", "street"),
            ("church", "street"), ("school", "corridor"))  # fmt: skip
_TOGETHER = {frozenset(_SCENE_OF[word] for word in pair) for pair in _ALLOWED}
# surroundings within a building, and under the sky
_INSIDE = frozenset(
    "kitchen bathroom restroom washroom bedroom room lounge office classroom library museum hospital gym corridor "
    "hallway".split()
)
_OUTSIDE = frozenset(
    "beach ocean sea coast shore shoreline harbor harbour pier street road highway freeway intersection alley "
    "sidewalk skyline lot forest woods jungle desert farm field meadow pasture grassland savanna runway tarmac "
    "mountain hill valley lake river park garden slope snow sky grass".split()
)
# nouns of things that stand in a building, and of those that are under the sky
_INDOOR_THINGS = (
    "bed", "couch", "toilet", "sink", "bathtub", "refrigerator", "oven", "microwave", "television", "desk",
    "computer monitor", "keyboard", "bookshelf", "nightstand", "dining table",
)  # fmt: skip
_OUTDOOR_THINGS = ("vehicle", "tree", "elephant", "giraffe", "zebra", "horse", "cow", "traffic light", "skis", "kite")
# what covers the ground; those of different rows exclude one another
_COVERINGS = ("snow snowy icy", "sand sandy desert", "grass grassy")
_COVERING_OF = {word: number for number, words in enumerate(_COVERINGS) for word in words.split()}
_DAYTIMES = {"night": 0, "sunset": 1, "dusk": 1, "evening": 1, "sunrise": 1, "dawn": 1, "sunny": 2, "daylight": 2}
_DAYTIMES |= {"sunlight": 2, "sunshine": 2, "sun": 2, "morning": 2}


@dataclass(frozen=True)
class Verdict:
    """Whether a claim is supported (None: nothing can judge), why not, and the entries that say so."""

    supported: bool | None
    reason: CutReason | None = None
    evidence: tuple[str, ...] = ()
    score: float | None = None


UNKNOWN = Verdict(None)


def verdict_of(statement: Statement, facts: Facts) -> Verdict:
    """The verdict on one claim."""
    match statement.kind:
        case "thing":
            return _thing(statement, facts)
        case "attribute":
            return _attribute(statement, facts)
        case "count":
            return _count(statement, facts)
        case "relation":
            return _relation(statement, facts)
        case "quote":
            return _quote(statement, facts)
        case "setting":
            return _setting(statement, facts)


def entities_named(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The things that a noun phrase may mean, by noun alone; those that only a text names come last."""
    return [
        entity for entity in (*facts.entities, *facts.told) if any(names(entry, phrase) for entry in entity.entries)
    ]


def names(entry: Entry, phrase: NounPhrase) -> bool:
    """Whether a noun phrase names what an entry names, by its noun, a synonym or a wider word."""
    return is_kind_of(entry.noun, phrase.noun) or _plays(entry, phrase.noun)


def _plays(entry: Entry, role: str) -> bool:
    """Whether a person's entry tells what the noun of a role says: a man riding a bicycle, a cyclist."""
    if role in _YOUNG and role in entry.words:
        return True
    if not is_kind_of(entry.noun, "person"):
        return False
    # "a skater" of "a man with a skateboard", "a reader" of one who reads
    stem = role[:-2] if role.endswith("er") and len(role) > 5 else ""
    if stem and is_kind_of(role, "person") and any(word.startswith(stem) for word in entry.words):
        return True
    known = _ROLES.get(role, frozenset())
    return any((verb_of(word) or word) in known or word in known for word in entry.words)


def _meant(phrase: NounPhrase, facts: Facts, quotes: Sequence[tuple[NounPhrase, str]] = ()) -> list[Entity]:
    """The things that a phrase names, those alone whose attributes and text agree, if there are any."""
    found = entities_named(phrase, facts)
    wanted = [letters_of(text) for carrier, text in quotes if carrier == phrase]
    found = [one for one in found if all(carries(one, text) for text in wanted)] or found
    # "the man with the newspaper" is one of several men
    found = [one for one in found if _has_with_it(one, phrase)] or found
    agreeing = [one for one in found if all(compared(word, one.words) is not False for word in _own(phrase))]
    return agreeing or found


def _has_with_it(entity: Entity, phrase: NounPhrase) -> bool:
    """Whether a thing's names tell of what a phrase says it wears or holds."""
    return bool(set(phrase.carried) & {singular(word) for word in entity.words})


def carries(entity: Entity, letters: str) -> bool:
    """Whether one of the lines on a thing has these letters, as whole words."""
    return any(has_letters(text, letters) for text in entity.texts)


def _own(phrase: NounPhrase) -> Iterator[str]:
    """The attributes of a phrase that are the thing's own: sizes are relative."""
    return (word for word in phrase.attributes if (group := group_of(word)) and group[0] != "size")


def _names_of(entities: Sequence[Entity]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for entity in entities for name in entity.names))


def _thing(statement: Statement, facts: Facts) -> Verdict:
    phrase = statement.phrase
    assert phrase is not None
    found = entities_named(phrase, facts)
    if phrase.negated:
        # nobody can show that something is absent; an entry shows that it is there
        with_box = [entity for entity in found if entity.box is not None]
        return Verdict(False, "contradicts", _names_of(with_box)) if with_box else UNKNOWN
    if found:
        return Verdict(True, None, _names_of(found))
    # a narrower word than the entry's ("a poodle" for a dog), or a part of a thing that is there
    if _narrowed(phrase, facts) or _is_part(phrase, facts):
        return UNKNOWN
    if _is_known_role(phrase, facts) or _is_read(statement, facts) or not is_visible(phrase.noun):
        return UNKNOWN
    # a model saw it, and was not sure; or a name has the word before its noun: "a chalkboard menu"
    if _unsure(phrase, facts) or any(phrase.noun in one.words for one in facts.entities):
        return UNKNOWN
    # "Exit 25" and "Springfield" may be what a line of text says
    told = letters_of(statement.read)
    lines = tuple(name for name, line in facts.lines.items() if told and has_letters(line, told))
    return Verdict(True, None, lines) if lines else Verdict(False, "unsupported_object")


def _unsure(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The things that a model saw without being sure which have the name of a phrase, and no other colour."""
    found = [one for one in facts.unsure if any(names(entry, phrase) for entry in one.entries)]
    return [one for one in found if all(compared(word, one.words) is not False for word in _own(phrase))]


def _is_known_role(phrase: NounPhrase, facts: Facts) -> bool:
    """Whether a phrase names one of the persons by a role: by what is known of it, it may be this person.

    One person has a role if the text refers to somebody ("the spectator"), if what the person wears or holds fits an
    entry ("a mechanic in blue overalls"), or if the role is of a thing that is there ("a tennis player"); of several,
    as many must be there.
    """
    if phrase.noun in _YOUNG and phrase.definite:
        return any(_is_living(entity) for entity in (*facts.entities, *facts.told))
    if not _is_role(phrase.noun):
        return False
    persons = _persons(facts)
    if phrase.definite or phrase.noun in _ROLES:
        return bool(persons)
    if phrase.many or (phrase.count or 1) > 1:
        most = sum(2 if any(entry.many for entry in one.entries) else 1 for one in persons)
        return most >= 2 and (phrase.count or 0) <= most
    first = phrase.noun.partition(" ")[0] if " " in phrase.noun else "-"
    of_thing = any(first in entity.words for entity in (*facts.entities, *facts.told))
    return bool(persons) and (of_thing or any(_has_with_it(one, phrase) for one in persons))


def _is_role(noun: str) -> bool:
    """Whether a noun names persons by what they do: a mechanic, and commuters, which are trains first in WordNet."""
    if noun in _PERSONS:
        return False
    agent = noun.endswith(("er", "or", "ist", "ian", "ant")) and any(
        person in lineage(sense)
        for person in lexicon().senses("person")[:1]
        for sense in lexicon().senses(noun)[:2]
        if sense
    )
    return is_kind_of(noun, "person") or agent


def _persons(facts: Facts) -> list[Entity]:
    """The persons with a box; those that a text names, if there is none."""
    for entities in (facts.entities, facts.told):
        if found := [one for one in entities if any(is_kind_of(entry.noun, "person") for entry in one.entries)]:
            return found
    return []


def _is_living(entity: Entity) -> bool:
    return any(is_kind_of(entry.noun, kind) for entry in entity.entries for kind in ("person", "animal"))


def _is_read(statement: Statement, facts: Facts) -> bool:
    """Whether a phrase names what carries text, such as a sign, and the text that it is said to carry was read."""
    told = [text for carrier, text in statement.quotes if carrier == statement.phrase]
    return (
        statement.phrase is not None
        and any(is_kind_of(statement.phrase.noun, carrier) for carrier in _CARRIERS)
        and any(_quote(replace(statement, phrase=None, value=text), facts).supported for text in told)
    )


def _narrowed(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The things with a box that a phrase names by a narrower word: "a poodle" for a dog."""
    return [one for one in facts.entities if any(is_kind_of(phrase.noun, entry.noun) for entry in one.entries)]


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
        if owners and not any(map(_is_living, owners)):
            return True
    return bool(wholes) and (last in _BODY or any(is_part_of(last, whole) for whole in wholes))


def _attribute(statement: Statement, facts: Facts) -> Verdict:
    phrase = statement.phrase
    assert phrase is not None
    found = entities_named(phrase, facts)
    if not found and phrase.owner and phrase.noun in _COVERS:
        # the dog's fur has the dog's colour
        found = entities_named(replace(phrase, noun=phrase.owner), facts)
    opinions = [(_has(statement.value, entity), entity) for entity in found]
    if statement.denied or phrase.share == "every":
        # "the blue car is not red" is told of the blue one
        meant = [id(entity) for entity in _meant(phrase, facts)]
        of_it = [(opinion, entity) for opinion, entity in opinions if not meant or id(entity) in meant]
        return _of_all(of_it, wanted=not statement.denied)
    if agreeing := [entity for opinion, entity in opinions if opinion]:
        return Verdict(True, None, _names_of(agreeing))
    # a text that names the thing without its attribute tells nothing where an entry with a box does
    opinions = [(opinion, entity) for opinion, entity in opinions if entity.box is not None] or opinions
    if not opinions or any(opinion is None for opinion, _ in opinions):
        return UNKNOWN
    group = group_of(statement.value)
    # sizes are relative: a "small" dog of one model is another one's "large" dog
    if group is None or group[0] == "size":
        return UNKNOWN
    return Verdict(False, "wrong_attribute", _names_of(found))


def _of_all(opinions: Sequence[tuple[bool | None, Entity]], wanted: bool) -> Verdict:
    """Of "both cars are red" and "no car is red": all things with a box have to have the attribute, or none may."""
    boxed = [(opinion, entity) for opinion, entity in opinions if entity.box is not None]
    if against := [entity for opinion, entity in boxed if opinion is (not wanted)]:
        return Verdict(False, "wrong_attribute", _names_of(against))
    if not boxed or any(opinion is None for opinion, _ in boxed):
        return UNKNOWN
    return Verdict(True, None, _names_of([entity for _, entity in boxed]))


def _has(word: str, entity: Entity) -> bool | None:
    """Whether a thing has an attribute by its names, else, for a colour, by its pixels; None if neither tells."""
    known = compared(word, entity.words)
    return shown(word, entity.shares) if known is None else known


def _count(statement: Statement, facts: Facts) -> Verdict:
    phrase = statement.phrase
    assert phrase is not None
    told = int(statement.value)
    found = [entity for entity in _meant(phrase, facts) if entity.box is not None]
    if not found and (wider := _narrowed(phrase, facts)):
        known = sum(is_kind_of(phrase.noun, noun) for noun in facts.doubtful) + len(wider)
        several = any(entry.many for entity in wider for entry in entity.entries)
        return UNKNOWN if told <= known or several else Verdict(False, "wrong_count", _names_of(wider))
    if not found and _is_role(phrase.noun) and told > 1:
        persons = [one for one in _persons(facts) if one.box is not None]
        several = any(entry.many for one in persons for entry in one.entries) or bool(facts.doubtful)
        if persons and told > len(persons) and not several:
            return Verdict(False, "wrong_count", _names_of(persons))
        return UNKNOWN
    if not found and (unsure := [one for one in _unsure(phrase, facts) if one.box is not None]):
        wrong = told > len(unsure) and not any(entry.many for one in unsure for entry in one.entries)
        return Verdict(False, "wrong_count", _names_of(unsure)) if wrong else UNKNOWN
    if not found:
        return _told_count(phrase, told, facts)
    many = any(entry.many and entry.count is None for entity in found for entry in entity.entries)
    # several names of one thing may lie at one place: the largest number of entries of one layer is possible too
    counted = sum(max(entry.count or 1 for entry in entity.entries) for entity in found)
    most = max(counted, _entries_of_one_layer(found, phrase))
    doubtful = sum(is_kind_of(noun, phrase.noun) for noun in facts.doubtful)
    evidence = _names_of(found)
    if many:
        return UNKNOWN
    # "five balloons" is one thing with a count; of several things a text may tell of some
    least = min(entry.count or 1 for entry in found[0].entries) if len(found) == 1 else len(found)
    if least <= told <= most or (told == 0 and most > 1):
        return Verdict(True, None, evidence)
    if most < told <= most + doubtful or (told == 0 and doubtful) or (statement.part and told < least):
        return UNKNOWN
    return Verdict(False, "wrong_count", evidence)


def _entries_of_one_layer(found: Sequence[Entity], phrase: NounPhrase) -> int:
    layers: dict[str, int] = {}
    for entity in found:
        for entry in entity.entries:
            if names(entry, phrase):
                layers[entry.layer] = layers.get(entry.layer, 0) + 1
    return max(layers.values(), default=0)


def _told_count(phrase: NounPhrase, told: int, facts: Facts) -> Verdict:
    """The count of things that only a text names: the text's own count decides, if it has one."""
    entries = [entry for entity in facts.told for entry in entity.entries if names(entry, phrase)]
    counts = {entry.count or (0 if entry.many else 1) for entry in entries}
    if not counts:
        return UNKNOWN
    # the phrase of each region may name one more: "a boy in a red shirt", twice
    most = max([*counts, sum(entry.count or 1 for entry in entries if entry.layer != "caption")])
    if told in counts or (told == 0 and most > 1) or 1 < told <= most:
        return Verdict(True, None, tuple(entry.name for entry in entries))
    # "dogs" in the caption leaves every number above one open
    if 0 in counts and told != 1:
        return UNKNOWN
    return Verdict(False, "wrong_count", tuple(entry.name for entry in entries))


def _relation(statement: Statement, facts: Facts) -> Verdict:
    """A place or a relation: of all subjects, or of one of those that it may be told of."""
    # a place is told of what can lie there: of "a bicycle against the wall on the right" no wall was found
    boxed = [one for one in statement.subjects if any(entity.box for entity in entities_named(one, facts))]
    verdicts = [_relation_of(subject, statement, facts) for subject in boxed or statement.subjects]
    # of all: the first that is false decides; else one that holds is enough
    order = (False, None, True) if statement.every else (True, None, False)
    return next(one for wanted in order for one in verdicts if one.supported is wanted)


def _relation_of(subject: NounPhrase, statement: Statement, facts: Facts) -> Verdict:
    if statement.names and (boxes := _boxes_of_text(subject, statement, facts)):
        right = tuple(name for name, box in boxes.items() if lies(box, statement.names, facts.size))
        return Verdict(True, None, right) if right else Verdict(False, "wrong_relation", tuple(boxes))
    own = [entity for entity in _meant(subject, facts, statement.quotes) if entity.box is not None]
    own = own or [entity for entity in _unsure(subject, facts) if entity.box is not None]
    own = own or [entity for entity in facts.entities if subject.noun in entity.words]
    if statement.names:
        found = [(lies(entity.box, statement.names, facts.size), (entity,)) for entity in own if entity.box]
        return _decided(found)
    meant = [
        entity
        for other in statement.others
        for entity in _meant(other, facts, statement.quotes) or _unsure(other, facts)
    ]
    pairs = [(a, b) for a, b in product(own, meant) if a is not b]
    return _decided([(related(a.box, statement.value, b.box, facts.size), (a, b)) for a, b in pairs if a.box and b.box])


def _boxes_of_text(subject: NounPhrase, statement: Statement, facts: Facts) -> Mapping[str, Box]:
    """The boxes of the lines that a phrase for text quotes, or of a carrier that no entry names; else none."""
    told = [letters_of(text) for phrase, text in statement.quotes if phrase == subject]
    if any(entity.box for entity in entities_named(subject, facts)):
        return {}
    return {
        name: box
        for name, box in facts.line_boxes.items()
        for letters in told
        if letters and has_letters(facts.lines[name], letters)
    }


def _decided(found: Sequence[tuple[bool | None, tuple[Entity, ...]]]) -> Verdict:
    """True if one of the things fulfils it, false if all contradict it."""
    for holds, entities in found:
        if holds:
            return Verdict(True, None, _names_of(entities))
    if not found or any(holds is None for holds, _ in found):
        return UNKNOWN
    return Verdict(False, "wrong_relation", _names_of([entity for _, entities in found for entity in entities]))


def _quote(statement: Statement, facts: Facts) -> Verdict:
    """Quoted letters must be read letter by letter, as whole words, in one line or across lines in their order."""
    wanted = letters_of(statement.value)
    if not wanted:
        return UNKNOWN
    names = tuple(name for name, line in facts.lines.items() if has_letters(line, wanted))
    if names:
        return _carried(statement, names, facts)
    joined = " ".join(map(letters_of, facts.lines.values()))
    if f" {wanted} " in f" {joined} " or _squeezed(wanted, facts):
        parts = tuple(n for n, line in facts.lines.items() if letters_of(line) and letters_of(line) in wanted)
        return Verdict(True, None, parts)
    return Verdict(False, "unread_text")


def _squeezed(wanted: str, facts: Facts) -> bool:
    """Whether the letters are those of some lines in a row, whatever the spaces: OCR divides words at wide letters."""
    lines = [letters_of(line).replace(" ", "") for line in facts.lines.values()]
    whole = wanted.replace(" ", "")
    ends = range(1, len(lines) + 1)
    return any("".join(lines[start:end]) == whole for end in ends for start in range(end))


def _carried(statement: Statement, names: tuple[str, ...], facts: Facts) -> Verdict:
    """A quotation that was read: is it on the thing that carries it by the sentence?"""
    if statement.phrase is None:
        return Verdict(True, None, names)
    found = [entity for entity in entities_named(statement.phrase, facts) if entity.box is not None]
    wanted = letters_of(statement.value)
    carrying = [one for one in found if carries(one, wanted)]
    elsewhere = [one for one in facts.entities if one not in found and carries(one, wanted)]
    if found and not carrying and elsewhere:
        return Verdict(False, "wrong_relation", (*names, *_names_of(found)))
    return Verdict(True, None, names)


def _setting(statement: Statement, facts: Facts) -> Verdict:
    """Surroundings: those that the caption or a tag names; others contradict it if they exclude one another."""
    phrase = statement.phrase
    assert phrase is not None
    alike = [entry for entry in facts.settings if is_kind_of(entry.noun, phrase.noun) or entry.noun == phrase.noun]
    named = entities_named(phrase, facts)
    if alike:
        opinions = [[compared(word, entry.words) for word in phrase.attributes] for entry in alike]
        evidence = tuple(entry.name for entry in alike)
        if any(False not in found for found in opinions):
            known = any(found.count(None) < len(found) or not found for found in opinions if False not in found)
            return Verdict(True, None, evidence) if known else UNKNOWN
        return Verdict(False, "contradicts", evidence)
    if named:
        return Verdict(True, None, _names_of(named))
    told = {phrase.noun, phrase.noun.rpartition(" ")[2], *phrase.attributes}
    excluded = [entry for entry in facts.settings if excludes(entry.noun, phrase.noun) or _covered(entry.words, told)]
    excluded += [] if excluded else _on_the_other_side(phrase.noun, facts)
    # where no kept caption tells of it, a dropped one that tells otherwise is the only witness
    unsure = [entry for one in facts.unsure for entry in one.entries if entry.noun == phrase.noun and one.box is None]
    if not facts.settings and not _unsure(phrase, facts):
        excluded += unsure
    if excluded:
        return Verdict(False, "contradicts", tuple(dict.fromkeys(entry.name for entry in excluded)))
    return UNKNOWN


def _covered(known: Set[str], told: Set[str]) -> bool:
    """Whether two grounds are covered by what excludes one another: snow, sand."""
    a, b = ({_COVERING_OF[word] for word in words if word in _COVERING_OF} for words in (known, told))
    return bool(a and b and not a & b)


def _on_the_other_side(noun: str, facts: Facts) -> list[Entry]:
    """The entries that show a picture taken under the sky, if the noun is of a room, or the reverse; else none.

    Surroundings decide; two things do, where no surroundings are known and no thing speaks for the noun.
    """
    last = noun.rpartition(" ")[2]
    if last not in _INSIDE | _OUTSIDE:
        return []
    same, other = (_INSIDE, _OUTSIDE) if last in _INSIDE else (_OUTSIDE, _INSIDE)
    words = [(entry, entry.noun.rpartition(" ")[2]) for entry in facts.settings]
    if any(word in same for _, word in words):
        return []
    if against := [entry for entry, word in words if word in other]:
        return against
    inside, outside = (
        [
            entry
            for one in facts.entities
            for entry in one.entries
            if any(is_kind_of(entry.noun, kind) for kind in kinds)
        ]
        for kinds in (_INDOOR_THINGS, _OUTDOOR_THINGS)
    )
    own, others = (inside, outside) if same is _INSIDE else (outside, inside)
    return others if not own and len(others) > 1 else []


def excludes(known: str, told: str) -> bool:
    """Whether two nouns of surroundings exclude one another: a kitchen, a beach; night, sunlight."""
    for table in (_SCENE_OF, _DAYTIMES):
        a, b = (table.get(noun, table.get(noun.rpartition(" ")[2])) for noun in (known, told))
        if a is not None and b is not None and a != b and not (table is _SCENE_OF and frozenset((a, b)) in _TOGETHER):
            return True
    return False


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

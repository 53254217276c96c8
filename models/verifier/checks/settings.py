"""The check of surroundings: what the caption or a tag names, and what excludes it."""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache

from models.verifier.attributes import compared
from models.verifier.checks.naming import entities_named, entries_of, unsure_things
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims.statements import Statement
from models.verifier.claims.surroundings import Around
from models.verifier.entities import Entry, Facts
from models.verifier.lexicon import is_kind_of

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
    "garden, park, yard, backyard, lawn, courtyard",
    "shop, store, mall, supermarket, mercantile establishment",
)
_SCENE_OF = {word: number for number, words in enumerate(_SCENES) for word in words.split(", ")}
# rows of which one may lie in the other, or be seen from it: a field in a stadium, a hall of a school
_ALLOWED = {
    "stadium": "field",
    "hospital": "corridor",
    "office": "corridor",
    "museum": "corridor street",
    "airport": "corridor restaurant",
    "station": "corridor",
    "church": "street",
    "school": "corridor",
    "garden": "street forest farm restaurant museum school hospital church stadium",
    "shop": "street restaurant station airport museum corridor kitchen",
}
_WIDE = frozenset("court station school office yard field".split())  # other senses of which name other places
_TOGETHER = {
    frozenset((_SCENE_OF[word], _SCENE_OF[other])) for word, others in _ALLOWED.items() for other in others.split()
}
# what may be seen from elsewhere: these rows exclude others only where the picture itself lies in the place
_SOFT = frozenset(_SCENE_OF[word] for word in ("garden", "shop"))
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
# kinds of places of which the picture shows the inside if it lies in one; those below them that are open or both
_BUILT = ("building", "place of business", "place of worship", "warehouse", "factory", "gymnasium", "library", "museum")
_OPEN = ("restaurant", "market", "farm", "castle", "greenhouse", "house", "station", "stadium", "barn", "zoo", "garage")
_NATURAL = ("geological formation", "body of water", "tract", "vegetation")
# what covers the ground; those of different rows exclude one another
_COVERINGS = ("snow snowy icy", "sand sandy desert", "grass grassy")
_COVERING_OF = {word: number for number, words in enumerate(_COVERINGS) for word in words.split()}
_DAYTIMES = {"night": 0, "sunset": 1, "dusk": 1, "evening": 1, "sunrise": 1, "dawn": 1, "sunny": 2, "daylight": 2}
_DAYTIMES |= {"sunlight": 2, "sunshine": 2, "sun": 2, "morning": 2}


def check_setting(statement: Statement, facts: Facts) -> Verdict:
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
        return Verdict(True, None, entries_of(named))
    told = {phrase.noun, phrase.noun.rpartition(" ")[2], *phrase.attributes}
    excluded = [entry for entry in facts.settings if _excluded(entry, statement) or _covered(entry.words, told)]
    excluded += [] if excluded else _on_the_other_side(phrase.noun, statement.around, facts)
    # where no kept caption tells of it, a dropped one that tells otherwise is the only witness
    unsure = [entry for one in facts.unsure for entry in one.entries if entry.noun == phrase.noun and one.box is None]
    if not facts.settings and not unsure_things(phrase, facts):
        excluded += unsure
    if excluded:
        return Verdict(False, "contradicts", tuple(dict.fromkeys(entry.name for entry in excluded)))
    return UNKNOWN


def _covered(known: Set[str], told: Set[str]) -> bool:
    """Whether two grounds are covered by what excludes one another: snow, sand."""
    a, b = ({_COVERING_OF[word] for word in words if word in _COVERING_OF} for words in (known, told))
    return bool(a and b and not a & b)


def _excluded(entry: Entry, statement: Statement) -> bool:
    """Whether surroundings that are known exclude those that a sentence tells of."""
    assert statement.phrase is not None
    return excludes(entry.noun, statement.phrase.noun, bool(statement.around))


def _side(noun: str, around: Around) -> str:
    """Whether a picture that lies in a place is taken "inside" a building or "outside"; "" if a noun does not tell."""
    last = noun.rpartition(" ")[2]
    if last in _INSIDE | _OUTSIDE:
        return "inside" if last in _INSIDE else "outside"
    if not around or any(is_kind_of(noun, one) for one in _OPEN):
        return ""
    if around == "in" and any(is_kind_of(noun, one) for one in _BUILT):
        return "inside"
    return "outside" if any(is_kind_of(noun, one) for one in _NATURAL) else ""


def _on_the_other_side(noun: str, around: Around, facts: Facts) -> list[Entry]:
    """The entries that show a picture taken under the sky, if the noun is of a room, or the reverse; else none.

    Surroundings decide; two things do, where no surroundings are known and no thing speaks for the noun.
    """
    side = _side(noun, around)
    if not side:
        return []
    known = [(entry, _side(entry.noun, entry.around)) for entry in facts.settings]
    if any(of == side for _, of in known):
        return []
    if against := [entry for entry, of in known if of]:
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
    own, others = (inside, outside) if side == "inside" else (outside, inside)
    return others if not own and len(others) > 1 else []


def excludes(known: str, told: str, around: bool = False) -> bool:
    """Whether two nouns of surroundings exclude one another: a kitchen, a beach; night, sunlight.

    around: whether the second is where the picture lies, so that no garden or shop is meant that is seen from there.
    """
    a, b = (_DAYTIMES.get(noun, _DAYTIMES.get(noun.rpartition(" ")[2])) for noun in (known, told))
    if a is not None and b is not None and a != b:
        return True
    a, b = _row_of(known), _row_of(told)
    if a is None or b is None or a == b or frozenset((a, b)) in _TOGETHER:
        return False
    return around or not {a, b} & _SOFT


@lru_cache(2_000)
def _row_of(noun: str) -> int | None:
    """The row of a place, by its noun, its last word, or what it is a kind of; None if it is in none."""
    for name in (noun, noun.rpartition(" ")[2]):
        if name in _SCENE_OF:
            return _SCENE_OF[name]
    return next((row for word, row in _SCENE_OF.items() if word not in _WIDE and is_kind_of(noun, word)), None)

"""What nouns name: nothing in particular, something that could be seen, or surroundings."""

from __future__ import annotations

from models.verifier.lexicon import is_compound, is_kind_of, is_object, lexicon, lineage
from models.verifier.phrases import PICTURES

# nouns that name nothing that could be there or not
_EMPTY = PICTURES | frozenset(
    "thing object item element subject side part half corner edge area portion section top bottom left right centre "
    "center middle front back foreground distance way view sense feeling mood atmosphere style theme setting detail "
    "look appearance impression effect contrast focus presence position arrangement design pattern colour color shade "
    "hue tone texture shape outline size kind type sort variety number lot bit rest beauty charm moment time day "
    "everything nothing viewer angle perspective caption description profile letter word text message writing "
    "lettering inscription font width height line row pose expression direction addition layout surface space "
    "combination mix blend touch hint hand use attention one other others whole total name scenery activity place "
    "high low home location destination spot stripe marking goods product breed good end tip".split()
)
BACKDROPS = frozenset("background backdrop".split())
SETTINGS = BACKDROPS | frozenset(
    "beach street road city town village park forest woods field meadow lawn grass garden mountain hill "
    "valley desert ocean sea lake river water sky snow ground floor wall room kitchen bathroom bedroom office "
    "restaurant cafe market store shop school classroom stadium airport station harbor harbour pier bridge "
    "sidewalk pavement path trail parking lot yard farm barn zoo museum library church hall corridor stage "
    "studio court runway track coast shore shoreline countryside landscape skyline horizon night sunset "
    "sunrise dusk dawn evening morning daylight sunlight sunshine sun sunny cloud rain fog shade shadow sand "
    "wind air light lighting soil dirt breeze wave glow ray weather reflection surroundings environment "
    "vegetation greenery foliage ceiling counter interior exterior outdoors indoors workspace terrain tarmac".split()
)
# what WordNet has above the names of places, and names below them that are things of their own
_PLACES = (
    "geographical area", "tract", "land", "geological formation", "body of water", "road", "thoroughfare",
    "paved surface", "passage", "room",
)  # fmt: skip
_GROUNDS = ("yard", "field", "shore", "ground", "shop", "store", "room", "market")
_THINGS = frozenset("bank goal post mushroom".split())


# nouns of what is there to carry text, and of what else can; what is a kind of them can too
_SIGNS = (
    "sign", "signboard", "label", "tag", "poster", "banner", "placard", "plaque", "sticker", "display", "signage",
    "note", "notice", "billboard",
)  # fmt: skip
_CARRIERS = (*_SIGNS, "board", "screen", "plate", "menu", "logo")

# parts that a person, an animal or a thing has with it
BODY = frozenset(
    "head face eye ear nose mouth hair beard arm hand finger leg foot tail paw wing beak fur feather horn neck back "
    "body skin shoulder knee tooth tongue mane hoof claw trunk shell petal stem leaf branch root roof handle sleeve "
    "collar strap lid lapel cuff hem pocket button zipper lace buckle".split()
)


def is_sign(noun: str) -> bool:
    """Whether a noun names what is there to carry text, such as a sign."""
    return any(is_kind_of(noun, sign) for sign in _SIGNS)


def is_carrier(noun: str) -> bool:
    """Whether a noun names what can carry text, such as a sign and a screen."""
    return any(is_kind_of(noun, carrier) for carrier in _CARRIERS)


def is_empty(noun: str) -> bool:
    """Whether a noun tells of the picture or of nothing in particular: "view", "mood", "thing"."""
    return noun in _EMPTY or (noun.rpartition(" ")[2] in _EMPTY and not is_compound(noun))


def is_visible(noun: str) -> bool:
    """Whether a noun names something that could be seen, by WordNet."""
    return is_object(noun if any(lexicon().senses(noun)) else noun.rpartition(" ")[2])


def is_society(noun: str) -> bool:
    """Whether a noun names people as a whole by its first sense: a team, a company."""
    first, social = lexicon().senses(noun)[:1], lexicon().senses("social group")
    # a van is a vehicle too
    thing = any(one and lexicon().senses("artifact")[0] in lineage(one) for one in lexicon().senses(noun))
    return bool(first and first[0]) and not thing and any(one in lineage(first[0]) for one in social)


def is_setting(noun: str) -> bool:
    """Whether a noun names a place or surroundings, such as "beach" and "sky"."""
    last = noun.rpartition(" ")[2]
    # "the farmyard", "a cornfield"
    if last in SETTINGS or (last.endswith(_GROUNDS) and last not in _THINGS):
        return True
    return last not in _THINGS and any(is_kind_of(noun, wider) for wider in _PLACES)

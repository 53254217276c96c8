"""Closed lists of English words, by which a word's part of speech is told."""

from __future__ import annotations

COUNTS = {
    **{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10},
    **{"eleven": 11, "twelve": 12, "single": 1, "lone": 1, "solitary": 1, "both": 2, "dozen": 12},
}
SEVERAL = frozenset("several many numerous multiple various few some".split())  # more than one, none knows how many
NEGATIONS = frozenset("no not without never neither nor none n't".split())
PRONOUNS = frozenset(
    "it they them he she him her i we us you this these those itself themselves himself herself each everything "
    "something nothing someone anyone others another one's there who whom".split()
)
POSSESSIVE = frozenset("its their his her my our your whose".split())
ARTICLES = frozenset("a an the this that these those each every any another all".split())
PREPOSITIONS = frozenset(
    "in on at by of to with from for over under above below beneath underneath beside near behind inside outside into "
    "onto upon against among amid amidst around across along between beyond through throughout towards toward within "
    "atop alongside off as like during past via opposite than".split()
)
THAT = frozenset("that which who whose where".split())
JOINS = frozenset("and or but while whereas though although yet so as because".split())
AUXILIARIES = frozenset(
    "is are was were be been being has have had do does did can could may might must shall should will would seems "
    "seem appears appear looks look 's 're isn't aren't wasn't weren't doesn't don't didn't cannot can't couldn't "
    "won't hasn't haven't".split()
)
MODALS = frozenset(
    "can could may might must shall should will would do does did don't doesn't didn't cannot can't couldn't "
    "won't".split()
)
SAME_PARTICIPLES = frozenset("read cut put set hit shut spread split shed cast".split())  # as their basic forms
BE = frozenset("is are was were be been being 's 're isn't aren't wasn't weren't".split())
ADVERBS = frozenset(
    "far very also just slightly partially partly mostly quite rather clearly directly immediately closely together "
    "apart away nearby here there then only still almost nearly perhaps possibly probably likely maybe further well "
    "outdoors indoors outside inside up down back forward upright ahead even once twice overhead downhill uphill "
    "mid-air midair out too".split()
)
# verbs of captions whose forms are nouns or adjectives too
CAPTION_VERBS = frozenset(
    "sit stand lie rest hang show feature read say play run walk fly hold wear carry contain include depict "
    "display float perch lean park ride jump sleep graze look face stretch fill cover surround line dominate "
    "occupy extend grow cast shine reflect frame set place position locate travel drive eat drink watch pose "
    "smile move swim rise bear spell state capture portray present complement add create give make suggest "
    "indicate enhance serve appear".split()
)
# those whose form in -s is hardly ever a noun there
MOSTLY_VERBS = frozenset(
    "sit stand lie rest hang show feature read say hold wear carry contain include depict display float perch lean "
    "sleep graze appear suggest create add give make fill stretch".split()
)
# nouns before "of" that tell of several things of one kind
GROUPS = frozenset(
    "pair group couple dozen hundred thousand million row bunch flock herd crowd set stack pile collection number "
    "variety series trio duo quartet team line cluster".split()
)
STANDING_FOR = ("one", "ones")  # for a noun, as in "a green one"
NEAR_TO = frozenset("next close adjacent opposite similar parallel near due".split())  # of "to" that is no infinitive
SINGLE = frozenset(("a", "an", "one", "this", "that", "each", "every", "another"))
DENYING = frozenset("not never".split())  # between a verb's words: "is not standing"
NEARER = frozenset("closer nearer further farther".split())  # WordNet has some of them as nouns

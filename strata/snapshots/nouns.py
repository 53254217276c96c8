"""The nouns of texts, by a list from WordNet 3.0: `python -m strata.snapshots.nouns FOLDER` writes the list.

FOLDER is WordNet's, `/usr/share/wordnet` of Debian's package wordnet-base. The list, `nouns.txt.gz`, has a noun a line,
with its irregular plurals after it. Its licence is in `nouns.LICENSE`.
"""

from __future__ import annotations

import functools
import gzip
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LIST = Path(__file__).with_name("nouns.txt.gz")
# words of WordNet's nouns that are mostly something else in a text, such as "will" and "can"
_NO_NOUNS = frozenset(
    "all and any are being both but can down for had has have her his how its let may might more most must not now off "
    "one out over she the their them there they this two three four five six seven eight nine ten under was what when "
    "where who why will with you look looks play plays show shows stand stands sit sits see seem seems go do does did "
    "here some say says beige pink purple grey gray maroon turquoise golden tan cyan magenta".split()
)
_POS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}  # of sense keys (senseidx(5WN))
_TAGGED = 3  # uses of a word in -ing as a noun, above which it is one ("building")
_ENDINGS = (("s$", ""), ("es$", ""), ("ies$", "y"), ("men$", "man"))  # of regular plurals (morphy(7WN))
_WORD = re.compile(r"[a-z]{3,}")
Ints = np.typing.NDArray[np.int64]


@functools.cache
def _singulars() -> Mapping[str, str]:
    """The nouns, and their irregular plurals, with the noun that each stands for."""
    lines = gzip.decompress(LIST.read_bytes()).decode().splitlines()
    nouns = [line.split() for line in lines]
    # "men" is a noun of its own too, and the plural of "man"
    return {forms[0]: forms[0] for forms in nouns} | {form: forms[0] for forms in nouns for form in forms[1:]}


@functools.lru_cache(200_000)
def noun_of(word: str) -> str | None:
    """The noun that a word in lower case is, in the singular; None for a word that is none."""
    known = _singulars()
    # the irregular plural or the word itself, then the regular plurals
    for form in (word, *(re.sub(ending, single, word) for ending, single in _ENDINGS)):
        if form in known and word not in _NO_NOUNS and (form == word or not word.endswith("ss")):
            return known[form]
    return None


def nouns_of(texts: pa.ChunkedArray | pa.Array) -> tuple[Ints, Ints, list[str]]:
    """The nouns of texts: pairs of the index of a text and of a noun, each pair once, and the nouns.

    Pairs are sorted by text. A null text has none.
    """
    return names_in(pc.split_pattern_regex(pc.fill_null(pc.utf8_lower(texts), ""), r"[^\pL]+"), noun_of)


def names_in(words: pa.ChunkedArray | pa.Array, name_of: Callable[[str], str | None]) -> tuple[Ints, Ints, list[str]]:
    """As `nouns_of`, for lists of words, each of which stands for a name or for none, and is looked up once."""
    words = words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words
    rows = pc.list_parent_indices(words).to_numpy().astype(np.int64)
    encoded = pc.list_flatten(words).dictionary_encode()
    found = [name_of(word) for word in encoded.dictionary.to_pylist()]
    # the number of each distinct word's name, -1 for none
    names = sorted({name for name in found if name is not None})
    numbers = {name: number for number, name in enumerate(names)}
    codes = np.array([numbers[name] if name is not None else -1 for name in found] or [-1], np.int64)
    named = codes[encoded.indices.to_numpy()] if len(rows) else np.empty(0, np.int64)
    pairs = np.unique(rows[named >= 0] * max(1, len(names)) + named[named >= 0])
    return pairs // max(1, len(names)), pairs % max(1, len(names)), names


# writing the list


def _index(folder: Path, part: str) -> set[str]:
    """The words of a part of speech. The licence at the top of the file is indented."""
    lines = (folder / f"index.{part}").read_text(encoding="latin-1").splitlines()
    return {line.split(" ", 1)[0] for line in lines if not line.startswith(" ")}


def word_uses(folder: Path) -> Mapping[str, Counter[str]]:
    """How often each word is used as what part of speech in WordNet's tagged texts (cntlist(5WN))."""
    uses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in (folder / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        key, _, count = line.split()
        word, _, sense = key.partition("%")
        uses[word][_POS[sense[0]]] += int(count)
    return uses


def list_of(folder: Path) -> Iterator[str]:
    """The lines of the list. Left out are words that are adjectives or adverbs more often, and forms of verbs."""
    verbs, uses = _index(folder, "verb"), word_uses(folder)
    irregular: defaultdict[str, list[str]] = defaultdict(list)
    for line in (folder / "noun.exc").read_text(encoding="latin-1").splitlines():
        plural, singular = line.split()[:2]
        irregular[singular].append(plural)
    for word in sorted(filter(_WORD.fullmatch, _index(folder, "noun"))):
        used: Any = uses.get(word, Counter())
        other = used["adj"] + used["adv"]
        stem = word.removesuffix("ing")
        of_verb = stem != word and bool({stem, stem[:-1], f"{stem}e"} & verbs) and used["noun"] <= _TAGGED
        # "windows" is a noun of its own too, but mostly the plural of "window"
        of_singular: Any = uses.get(word.removesuffix("s"), Counter()) if word.endswith("s") else Counter()
        of_singular = of_singular or (
            uses.get(word.removesuffix("es"), Counter()) if word.endswith("es") else Counter()
        )
        if other > used["noun"] or of_verb or of_singular["noun"] > used["noun"]:
            continue
        yield " ".join([word, *filter(_WORD.fullmatch, irregular[word])])


if __name__ == "__main__":
    content = "\n".join(list_of(Path(sys.argv[1]))).encode()
    LIST.write_bytes(gzip.compress(content, mtime=0))

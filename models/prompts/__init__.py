"""The composer's prompts, one TOML file each, and the text of a record's notes for them."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from models.boxes import area
from models.demo.grounding import Fact, Relation, Wording
from models.evidence.relations import OPPOSITE, clear_relations
from models.kinds.nouns import is_plural
from models.notes import Note, notes_of, quotation, settings_of
from models.prompts.lengths import LENGTHS
from strata.core import LAYERS, Record, kept

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Prompt:
    """A system message, an optional worked example (notes and answer), and the wording for grounded decoding."""

    system: str
    example: tuple[str, str] | None
    wording: Wording | None

    def notes(self, record: Record, limit: int, length: str = "") -> str:
        """The text of a record's notes: one line per fact if the prompt has a wording, else in sections; may be ""."""
        return small_notes(record, limit, length) if self.wording else full_notes(record, limit)

    def messages(self, notes: str, system: str | None = None) -> list[dict[str, str]]:
        """The chat messages that ask for a description of the notes. system: the system message, None for its own."""
        pairs = [("system", system or self.system)]
        if self.example:
            pairs += [("user", self.example[0]), ("assistant", self.example[1])]
        return [{"role": role, "content": text} for role, text in [*pairs, ("user", notes)]]


def load_prompt(name: str, sha256: str, text: str | None = None) -> Prompt:
    """Load a prompt. text: the file's content from the job's profile; without it `models/prompts/NAME.toml` is read.

    Raises ValueError if the file does not exist or has another SHA-256 than the profile says.
    """
    path = FOLDER / f"{name}.toml"
    if text is None and not path.is_file():
        raise ValueError(f"no prompt {name!r}; there are: {', '.join(sorted(p.stem for p in FOLDER.glob('*.toml')))}")
    # the hash is part of the profile's fingerprint: another text would give other rows under the same fingerprint
    content = path.read_bytes() if text is None else text.encode()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"prompt {name!r} has changed: its sha256 is {found}, the profile says {sha256}")
    data = tomllib.loads(content.decode())
    example = (data["example_notes"].strip(), data["example_answer"].strip()) if "example_notes" in data else None
    return Prompt(
        system=data["system"].strip(),
        example=example,
        wording=TypeAdapter(Wording).validate_python(data["wording"]) if "wording" in data else None,
    )


def facts_of(record: Record, limit: int, length: str = "") -> list[Fact]:
    """The facts for a grounded text of a record at a length: its notes, and the setting that the caption names."""
    notes = _told(record, limit, length)
    facts = [Fact(_named(note), note.place, many=_is_many(note)) for note in notes]
    if record.caption and record.caption.kept:
        settings = settings_of(record.caption.text, notes)
        # one sentence has room for a setting that continues it
        one = LENGTHS[length].sentences == 1 and bool(facts)
        facts += [Fact(phrase, lead=lead) for lead, phrase in settings if lead or not one]
    return facts


def _told(record: Record, limit: int, length: str) -> list[Note]:
    """The notes that a text of a length tells, from left to right: all, or the largest ones."""
    notes = notes_of(record, limit)
    largest = sorted(notes, key=lambda note: -area(note.box))[: LENGTHS[length].things]
    return [note for note in notes if note in largest]


def relations_of(record: Record, limit: int, wording: Wording, length: str = "") -> list[Relation]:
    """What a grounded description says of pairs of its things: one relation, two of four things and more.

    Only of things that "the" and a name mean without doubt. Other lengths have other numbers.
    """
    notes = _told(record, limit, length)
    names = {index: name for index, note in enumerate(notes) if (name := _definite(note, notes))}
    boxes, size = [notes[index].box for index in names], (record.width or 1, record.height or 1)
    named = list(names.values())
    relations = []
    usual, asked = 1 + (len(names) >= 4), LENGTHS[length].relations
    for i, relation, j in clear_relations(boxes, size, most=usual if asked is None else asked):
        pairs = [(named[i], relation, named[j]), (named[j], OPPOSITE[relation], named[i])]
        worded = [(a, wording.relations.get(word), b) for a, word, b in pairs]
        told = [f"{a[0].upper()}{a[1:]} {words} {b}." for a, words, b in worded if words]
        relations += [Relation(tuple(told))] if told else []
    return relations


def _definite(note: Note, notes: list[Note]) -> str:
    """A note's name with "the"; "" if it is plural or without a name, or if it can mean another note too."""
    article, _, noun = note.phrases[0].partition(" ") if note.phrases else ("", "", "")
    if article.lower() not in ("a", "an") or not noun:
        return ""
    alike = [other for other in notes if other.phrases[:1] == note.phrases[:1]]
    if len(alike) == 1:
        return f"the {noun}"
    # of several signs, by what stands on them
    unique = note.texts and sum(other.texts == note.texts for other in alike) == 1
    return f"the {noun} that says {_read(note)}" if unique else ""


def small_notes(record: Record, limit: int, length: str = "") -> str:
    """The notes for a small model, one line per fact; "" without facts."""
    facts = facts_of(record, limit, length)
    if not facts:
        return ""
    lines = [f"- {fact.name}, at the {fact.place}" if fact.place else _lead(fact) for fact in facts]
    if record.alt_text:
        lines.insert(0, f"Found beside the words: {' '.join(record.alt_text.split())[:200]}")
    return "\n".join(lines)


def _lead(fact: Fact) -> str:
    return f"- {fact.lead} {fact.name}" if fact.lead else f"- {fact.name}"


def full_notes(record: Record, limit: int) -> str:
    """The notes for a model that follows instructions, in sections; sections without content are left out."""
    # the caption, the things, the text on them
    notes = notes_of(record, limit)
    sections: list[tuple[str, list[str]]] = []
    if record.caption and record.caption.kept:
        sections.append(("Caption of the whole picture:", [record.caption.text.strip()]))
    sections.append(("Things and their places:", [f"- {_line_of(note)}" for note in notes if note.phrases]))
    read = [f"- {_read(note)} ({note.place})" for note in notes if note.texts]
    sections.append(("Text that can be read:", read))
    # layers of words for the whole image, such as tags
    for layer in LAYERS.values():
        if layer.many and not layer.boxed:
            words = [layer.display_text(entry) for entry in kept(getattr(record, layer.name))]
            sections.append((f"{layer.title.capitalize()} of the whole picture:", [", ".join(words)] if words else []))
    if not any(lines for _, lines in sections):
        return ""
    # the alt text alone is no reason for a description, since it was not checked against the image
    if record.alt_text:
        sections.append(("Words found beside the picture:", [" ".join(record.alt_text.split())]))
    return "\n\n".join("\n".join([title, *lines]) for title, lines in sections if lines)


def _line_of(note: Note) -> str:
    carries = f", carries the text {_read(note)}" if note.texts else ""
    return f"{' / '.join(note.phrases)}: {', '.join(filter(None, (note.size, note.place)))}{carries}"


def _named(note: Note) -> str:
    """A note as a noun phrase: 'a large red car', 'a sign that says "OPEN"', 'the word "OPEN"'."""
    read = _read(note) if note.texts else ""
    if not note.phrases:
        return f"the {'words' if ' ' in read else 'word'} {read}"
    # put the size between article and noun: "a large red car"
    phrase = note.phrases[0]
    article, _, noun = phrase.partition(" ")
    if note.size and noun and article.lower() in ("a", "an"):
        phrase = f"a {note.size} {noun}"
    return f"{phrase} that {'say' if _is_many(note) else 'says'} {read}" if read else phrase


def _is_many(note: Note) -> bool:
    """Whether its verb is a plural: of "skis", and of "the words"."""
    return is_plural(note.phrases[0]) if note.phrases else " " in _read(note)


def _read(note: Note) -> str:
    """The lines of text on a thing as one quotation."""
    return quotation(note.texts)

"""The check of quoted text against the lines that were read, letter by letter."""

from __future__ import annotations

from models.verifier.checks.naming import carries, entities_named, entries_of
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims.statements import Statement
from models.verifier.entities import Facts, has_letters, letters_of


def check_quotation(statement: Statement, facts: Facts) -> Verdict:
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
        return Verdict(False, "wrong_relation", (*names, *entries_of(found)))
    return Verdict(True, None, names)

"""What only a data set's owner knows of it: title, licence, languages, creator, address. Nothing of it is guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from strata.errors import InvalidInput

LONGEST = 200  # characters of a title or a name
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,99}")  # an identifier of the Hub or of SPDX
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # ISO 639, with subtags as BCP 47 has them


@dataclass(frozen=True)
class About:
    """What its owner says of a data set; None or empty: nothing.

    license: an identifier, such as `cc-by-4.0`, or the address of a text. languages: codes of ISO 639, such as `en`.
    creator: a name. url: the page of the data set. Raises InvalidInput, which names the option of the command line.
    """

    title: str | None = None
    license: str | None = None
    languages: tuple[str, ...] = ()
    creator: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        for option, text in (("--title", self.title), ("--creator", self.creator)):
            if text is not None and not (text.strip() and text.isprintable() and len(text) <= LONGEST):
                raise InvalidInput(f"{option}: right is one line of 1 to {LONGEST} printable characters")
        if self.license is not None and not (_LICENCE.fullmatch(self.license) or is_page(self.license)):
            raise InvalidInput(
                f"--license {self.license[:80]!r}: right is an identifier such as cc-by-4.0, or the address of its text"
            )
        for language in self.languages:
            if not _LANGUAGE.fullmatch(language):
                raise InvalidInput(f"--language {language[:80]!r}: right is a code such as en or pt-BR")
        if self.url is not None and not is_page(self.url):
            raise InvalidInput(f"--url {self.url[:80]!r}: right is an address that begins with https:// or http://")


def is_page(text: str) -> bool:
    """Whether a text is an address of the web, without white space and without a user or a password in it."""
    if not re.fullmatch(r"https?://[^\s<>\"']{1,2000}", text) or not text.isprintable():
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.hostname) and parts.username is None and parts.password is None

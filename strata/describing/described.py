"""What `describe` returns: records that also know their image, and draw themselves in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from pydantic import PrivateAttr

from strata.core import Record, Settings, Status
from strata.describing.images import ImageSource
from strata.errors import DataError, StrataError
from strata.images import decode

STYLE = Path(__file__).with_name("described.css")
SHOWN = 24  # records of a list that a notebook draws


class DescriptionFailed(DataError):
    """The only image that was given could not be described. `described` is its failed record."""

    def __init__(self, described: DescribedImage) -> None:
        note = described.failure
        reason = with_name(described.key, f"{note.stage}: {note.error_type}: {note.detail}") if note else described.key
        super().__init__(reason)
        self.described = described


def with_name(name: str, reason: str) -> str:
    """Why an image failed, with its name, unless the reason has it already."""
    return reason if name in reason else f"{name}: {reason}"


class DescribedImage(Record):
    """A record, as the service returns it, of an image that was described in this process.

    In a notebook it is drawn: the picture with the boxes of what was kept, and each sentence with its evidence.
    """

    _source: ImageSource | None = PrivateAttr(default=None)
    _settings: Settings | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, record: Record, source: ImageSource, settings: Settings) -> DescribedImage:
        """A record with its image."""
        described = cls.model_construct(_fields_set=record.model_fields_set, **record.__dict__)
        described._source, described._settings = source, settings
        return described

    @property
    def succeeded(self) -> bool:
        """Whether the image has layers; if not, `failure` says why it failed, or which rule rejected it."""
        return self.status is Status.SUCCEEDED

    def picture(self) -> Image.Image:
        """The image as the models saw it: upright RGB, in the size of the record's boxes.

        It is read again. Raises OSError and ImageError.
        """
        if self._source is None or self._settings is None:
            raise FileNotFoundError(f"{self.key}: the record has no image with it")
        read = self._source.read(self._settings)
        if read.pixels is not None:
            return read.pixels
        return decode(read.data or b"", self._settings.max_pixels)

    def __str__(self) -> str:
        """The description, else the caption, else why there is none."""
        if self.failure is not None:
            return f"{self.status.value}: {self.failure.error_type}: {self.failure.detail}"
        if self.description is not None:
            return self.description.text
        return self.caption.text if self.caption is not None and self.caption.kept else ""

    def __repr__(self) -> str:
        return f"<DescribedImage {self.key!r} {self.status.value}: {str(self)[:200]!r}>"

    def _repr_html_(self) -> str:
        return _page([self])


class DescribedImages(list[DescribedImage]):
    """Several described images, in the order in which they were given. A notebook draws the first SHOWN of them."""

    @property
    def failed(self) -> list[DescribedImage]:
        """Those that have no layers: images that failed, and those that a rule of the profile rejected."""
        return [one for one in self if not one.succeeded]

    def _repr_html_(self) -> str:
        rest = len(self) - SHOWN
        note = f'<p class="faint">and {rest:,} more</p>' if rest > 0 else ""
        failed = len(self.failed)
        head = f"<p>{len(self):,} images{f', {failed:,} without a description' if failed else ''}</p>"
        return _page(self[:SHOWN], head, note)


def _page(described: Iterable[DescribedImage], head: str = "", tail: str = "") -> str:
    """HTML that needs nothing from outside, has no script, and whose style reaches nothing else of the page."""
    style = STYLE.read_text(encoding="utf-8")
    return f'<div class="strata-described"><style>{style}</style>{head}{"".join(map(_card, described))}{tail}</div>'


def _card(described: DescribedImage) -> str:
    # what draws a report's records draws these too
    from strata.evaluation.report.cards import told
    from strata.evaluation.report.markup import tag

    size = f" {described.width}×{described.height}" if described.width and described.height else ""
    head = tag("p", tag("b", described.key), tag("small", f"{size} {described.profile or ''}"))
    if described.failure is not None:
        note = described.failure
        reason = tag("p", tag("b", described.status.value), f" {note.stage}: {note.error_type}: {note.detail}")
        return tag("article", head, reason)
    return tag("article", head, told(described, _data_uri(described)))


def _data_uri(described: DescribedImage) -> str | None:
    from strata.evaluation.report.pictures import data_uri

    try:
        return data_uri(described.picture())
    except (OSError, StrataError):  # the file is gone meanwhile
        return None

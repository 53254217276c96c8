"""One sample as training gets it, and the samples that could not be read in its place."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from strata import images
from strata.addresses import without_secrets
from strata.data.mixtures import Share
from strata.data.sources.samples import RawSample, SampleError

MAX_PIXELS = 100_000_000  # width × height of the largest image that is decoded


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample stands: its index in an epoch, the index of its share, and its number in the share's source.

    draw: a random number that chooses its instruction, if there are several.
    """

    epoch: int
    index: int
    share: int
    number: int
    draw: int = 0


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be read. source: its share's name; number: in the source; reason: one line."""

    source: str
    number: int
    key: str
    uri: str
    reason: str

    @classmethod
    def of(cls, source: str, number: int, error: SampleError) -> Skipped:
        """What is known of it from its error, without the secrets of addresses."""
        return cls(source, number, error.key or str(number), without_secrets(error.uri), without_secrets(str(error)))


@dataclass(frozen=True)
class Sample:
    """One sample.

    images: RGB, EXIF-upright; none for a sample of text only. conversation: turns {"role": "user" | "assistant" |
    "system", "content": text}, beginning with the user's or with one system turn. One image belongs before the first
    question; with several, the texts have "<image>" at the place of each. source: the name of its share of the mixture.
    place: where the order has put it; after a replacement that of the first sample that could not be read, while key
    and source are those of the sample itself. skipped: the samples that could not be read before this one was taken.
    """

    key: str
    images: list[Image.Image]
    conversation: list[dict[str, str]]
    task: str
    source: str
    place: Place
    number: int
    skipped: tuple[Skipped, ...] = ()

    @property
    def image(self) -> Image.Image:
        """The only image. Raises ValueError if there is none, or more than one."""
        (image,) = self.images
        return image

    @property
    def index(self) -> int:
        """The sample's index in the epoch."""
        return self.place.index

    @property
    def name(self) -> str:
        """The sample as messages name it."""
        return f"{self.source}, sample {self.key}"


def decoded(place: Place, share: Share, number: int, raw: RawSample, skipped: tuple[Skipped, ...] = ()) -> Sample:
    """Decode a sample of a share. number: in the share's source. Raises SampleError."""
    try:
        pixels = [images.decode(data, MAX_PIXELS) for data in raw.images]
    except images.ImageError as error:
        raise share.source.explain(number, str(error)) from None
    conversation = share.conversation(raw, place.draw)
    # it may have had none, or nothing but control tokens
    if any(turn["role"] == "assistant" and not turn["content"].strip() for turn in conversation):
        raise share.source.explain(number, "an answer has no text")
    return Sample(raw.key, pixels, conversation, share.task, share.name, place, number, skipped)

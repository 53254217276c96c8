"""The figures of an evaluation: what each one is, and which direction is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "neither"]
Counts = dict[str, tuple[float, float]]  # of one text of one image: the numerator and the denominator of each figure


@dataclass(frozen=True)
class FigureSpec:
    """One figure: the sum of its numerators over images, divided by that of its denominators.

    meaning: for people, as "share of …". source: what it needs. share: whether it lies in 0..1 and is told in percent.
    """

    meaning: str
    better: Better
    source: Literal["truth", "record", "models", "references"]
    share: bool = True


FIGURES: Mapping[str, FigureSpec] = {
    "objects_recalled": FigureSpec("share of the things in the images that are named", "higher", "truth"),
    "objects_invented": FigureSpec(
        "share of the named things that are not there, or not in this colour", "lower", "truth"
    ),
    "chair_i": FigureSpec("CHAIR_i: share of the mentions of things that name what is not there", "lower", "truth"),
    "chair_s": FigureSpec("CHAIR_s: share of the texts that name something that is not there", "lower", "truth"),
    "attributes_right": FigureSpec("share of the told attributes that are right", "higher", "truth"),
    "counts_right": FigureSpec("share of the told numbers of things that are right", "higher", "truth"),
    "relations_right": FigureSpec("share of the told relations that are right", "higher", "truth"),
    "relations_told": FigureSpec("share of the texts on two or more things that tell a relation", "higher", "truth"),
    "relations_recalled": FigureSpec("share of the annotated relations that the text tells", "higher", "truth"),
    "text_recalled": FigureSpec("share of the words in the images that are read letter by letter", "higher", "truth"),
    "text_right": FigureSpec("share of the quoted words that are in the images", "higher", "truth"),
    "boxes_found": FigureSpec("share of the things' boxes that an entry covers with an IoU of 0.5", "higher", "truth"),
    "boxes_right": FigureSpec("share of the entries' boxes that cover a thing with an IoU of 0.5", "higher", "truth"),
    "boxes_named": FigureSpec("share of the boxes found whose entry has the right name", "higher", "truth"),
    "box_iou": FigureSpec("mean IoU of the boxes found", "higher", "truth"),
    "claims_supported": FigureSpec("share of the claims judged by the verifier that it supports", "higher", "record"),
    "claims_judged": FigureSpec("share of the claims that the verifier could judge", "neither", "record"),
    "sentences_with_evidence": FigureSpec("share of the sentences that rest on an entry", "higher", "record"),
    "coverage": FigureSpec("share of the kept things and lines that the text mentions", "higher", "record"),
    "ocr_recalled": FigureSpec("share of the kept lines of text that the text quotes", "higher", "record"),
    "repetition": FigureSpec("share of the runs of four words that the text has said before", "lower", "record"),
    "words": FigureSpec("words of a text", "neither", "record", share=False),
    "sentences": FigureSpec("sentences of a text", "neither", "record", share=False),
    "texts": FigureSpec("share of the images that have this text, and it is not empty", "higher", "record"),
    **{
        f"{name}{suffix}": FigureSpec(f"{meaning}{whose}", "higher", "models")
        for suffix, whose in (("", "the matcher"), ("_second", "the second matcher"))
        for name, meaning in (
            ("sentences_matched", "mean probability that a sentence is true of what it rests on in the image, by "),
            ("own_image_preferred", "share of the texts that fit their own image better than another one, by "),
        )
    },
    "clip_score": FigureSpec("CLIPScore: 2.5 times the cosine of text and image", "higher", "models"),
    "judged_correct": FigureSpec("how right the judge finds the text, 0 to 100", "higher", "models"),
    "judged_complete": FigureSpec("how much of the image the judge finds told, 0 to 100", "higher", "models"),
    "capture": FigureSpec("CAPTURE: how well scene graphs of text and references agree", "higher", "references"),
    **{
        f"reference_{kind}_{name}": FigureSpec(meaning.format(kind), "higher", "references")
        for kind in ("objects", "attributes", "relations")
        for name, meaning in (
            ("recalled", "share of the {} of the references that the text tells"),
            ("precise", "share of the {} of the text that the references tell"),
        )
    },
}

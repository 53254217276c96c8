"""The page of a report: one HTML file without scripts, which loads nothing and so opens offline."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from strata.core import Record
from strata.evaluation.evaluation import BASELINES, Evaluation, Figure
from strata.evaluation.figures import FIGURES
from strata.evaluation.report.cards import REASONS, card
from strata.evaluation.report.content import GROUPS, Content
from strata.evaluation.report.markup import Markup, bars, histogram, joined, table, tag, text
from strata.evaluation.rows import Rejection
from strata.evaluation.truth import Truth
from strata.store import Provenance

STYLE = Path(__file__).with_name("report.css")
_TITLES = {"worst": "Worst records", "best": "Best records", "random": "Random records"}
_LEGEND = {
    "regions": "a region",
    "objects": "an object",
    "text": "a line of text",
    "caption": "the caption",
    "tags": "a tag",
    "alt_text": "the alt text alone",
    "none": "nothing",
    "cut": "cut by the verifier",
}


@dataclass(frozen=True)
class Page:
    """What a page shows. records, pictures, truths: by key, of the shown records."""

    evaluation: Evaluation
    content: Content
    records: Mapping[str, Record]
    pictures: Mapping[str, str]
    truths: Mapping[str, Truth]
    rejections: Sequence[Rejection] = ()
    provenance: Sequence[Provenance] = field(default_factory=tuple)

    def html(self) -> str:
        """The whole page."""
        style = STYLE.read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        rules = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        title = f"Strata report: {self.evaluation.kind} {self.evaluation.source}"
        head = tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=rules),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            tag("style", Markup(style)),
        )
        body = tag("body", tag("main", *self._sections()))
        return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"

    def _sections(self) -> Iterator[Markup]:
        found = self.evaluation
        yield tag("h1", f"Report on the {found.kind} {found.source}")
        about = f"{found.created_at:%Y-%m-%d %H:%M} UTC; profile {found.profile or 'unknown'}; "
        about += f"{found.images:,} images measured, seed {found.seed}"
        yield tag("p", about, class_="faint")
        yield tag("div", *(_count(status, number) for status, number in self._statuses()), class_="counts")
        yield from self._figures()
        yield from self._plots()
        yield from self._reasons()
        yield from self._groups()
        yield from self._provenance()

    def _statuses(self) -> list[tuple[str, int]]:
        return [(name, self.evaluation.statuses.get(name, 0)) for name in ("succeeded", "filtered", "failed")]

    # figures

    def _figures(self) -> Iterator[Markup]:
        texts = self.evaluation.texts
        truth = ", ".join(f"{origin} of {count:,} images" for origin, count in self.evaluation.truth.items())
        note = f"In percent, with intervals of {self.evaluation.confidence:.0%}. Truth: {truth or 'none'}. "
        note += "; ".join(f"{name}: {meaning}" for name, meaning in BASELINES.items() if name in texts)
        yield tag("h2", "Figures")
        yield tag("p", note, class_="faint")
        first = ["description", "composed", *BASELINES]
        names = [name for name in first if name in texts]
        others = [name for name in texts if name not in first]
        for title, chosen in (("Figures of the texts", names), ("Figures of layers and variants", others)):
            used = [name for name in FIGURES if any(_has(texts[one].figures.get(name)) for one in chosen)]
            rows = [
                [tag("span", name.replace("_", " "), title=FIGURES[name].meaning)]
                + [_figure(name, texts[one].figures.get(name)) for one in chosen]
                for name in used
            ]
            if chosen and rows:
                yield table(["", *chosen], rows, title)
        measured = {name for one in texts.values() for name, figure in one.figures.items() if _has(figure)}
        told = [tag("li", f"{name.replace('_', ' ')}: {FIGURES[name].meaning}") for name in FIGURES if name in measured]
        yield tag("details", tag("summary", "what the figures are"), tag("ul", *told))

    # plots

    def _plots(self) -> Iterator[Markup]:
        found = self.content
        drawn = [
            ("Words of a description", histogram(found.words, "words of a description")) if found.words else None,
            ("Kept things of an image", histogram(found.things, "kept things of an image")) if found.things else None,
            ("Match of all entries", histogram(found.matches, "match of all entries", False))
            if found.matches
            else None,
            ("Evidence of sentences", bars(dict(found.evidence.most_common()), "evidence of sentences"))
            if found.evidence
            else None,
            ("Commonest kept phrases", bars(dict(found.names.most_common(200)), "commonest kept phrases"))
            if found.names
            else None,
        ]
        yield tag("h2", "Distributions")
        yield tag("div", *(tag("figure", tag("figcaption", one[0]), one[1]) for one in drawn if one), class_="plots")

    # reasons

    def _reasons(self) -> Iterator[Markup]:
        found = self.content
        yield tag("h2", "Reasons")
        figures = []
        if found.cuts:
            cuts = {REASONS.get(reason, reason): number for reason, number in found.cuts.most_common()}
            figures.append(("Sentences cut by the verifier", bars(cuts, "sentences cut by the verifier")))
        for layer, reasons in found.drops.items():
            kept = found.kept[layer]
            caption = f"Dropped of the layer {layer} ({sum(reasons.values()):,}; {kept:,} kept)"
            figures.append((caption, bars(dict(reasons.most_common()), caption)))
        if found.warnings:
            figures.append(("Warnings", bars(dict(found.warnings.most_common()), "warnings")))
        if figures:
            yield tag("div", *(tag("figure", tag("figcaption", one), chart) for one, chart in figures), class_="plots")
        if self.rejections:
            rows = [[one.status, one.stage, one.error, f"{one.number:,}", one.example] for one in self.rejections]
            yield table(["rows", "stage", "reason", "number", "example"], rows, "Failed and filtered rows")
        elif not figures:
            yield tag("p", "Nothing was dropped, cut or rejected.", class_="faint")

    # records

    def _groups(self) -> Iterator[Markup]:
        yield tag("h2", "Records")
        legend = [tag("span", words, class_=f"sentence {name}") for name, words in _LEGEND.items()]
        yield tag("p", "A sentence has the colour of what it rests on: ", joined(legend, " "), class_="legend")
        score = "The score is the mean of these figures of the description, where an image has them: things and text "
        score += (
            "recalled, things not invented, claims supported as it was composed, sentences with evidence, coverage, "
        )
        yield tag("p", score + "words not repeated.", class_="faint")
        for group in GROUPS:
            shown = self.content.groups.get(group, [])
            if shown:
                yield tag("h2", _TITLES[group])
                yield tag("div", *(self._card(key, value) for key, value in shown), class_="cards")

    def _card(self, key: str, score: float) -> Markup:
        return card(self.records[key], score, self.pictures.get(key), self.truths.get(key))

    # provenance

    def _provenance(self) -> Iterator[Markup]:
        yield tag("h2", "Provenance")
        yield table(["group", "fingerprint"], self._fingerprints(), "Fingerprints")
        for one in self.provenance:
            yield tag("h3", f"profile {one.profile or 'unknown'}")
            stages = one.settings.get("stages") or {}
            rows = [
                [name, stage.get("backend", ""), stage.get("model", ""), tag("code", stage.get("revision", ""))]
                for name, stage in stages.items()
            ]
            if rows:
                yield table(["stage", "back end", "model", "revision"], rows, f"Models of {one.profile}")
            for name, prompt in one.prompts.items():
                yield tag("details", tag("summary", f"prompt {name}"), tag("pre", prompt))
            if one.settings:
                settings = json.dumps(one.settings, indent=1, ensure_ascii=False)
                yield tag("details", tag("summary", "all settings"), tag("pre", text(settings)))

    def _fingerprints(self) -> list[list[object]]:
        known: list[list[object]] = [
            [group, tag("code", value)] for one in self.provenance for group, value in one.fingerprints.items()
        ]
        return known or [["llm", tag("code", value)] for value in self.evaluation.fingerprints]


def _count(status: str, number: int) -> Markup:
    return tag("div", tag("b", f"{number:,}"), " ", status, class_=f"count {status}")


def _has(figure: Figure | None) -> bool:
    return figure is not None and figure.value is not None


def _figure(name: str, figure: Figure | None) -> Markup:
    if figure is None or figure.value is None:
        return tag("span", "–", class_="faint")
    times = 100 if FIGURES[name].share else 1
    low, high = (f"{times * value:.1f}" if value is not None else "–" for value in (figure.low, figure.high))
    return joined([f"{times * figure.value:.1f} ", tag("small", f"{low}–{high}")])

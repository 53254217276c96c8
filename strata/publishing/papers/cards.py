"""The data card of a snapshot or an export: `README.md`, with a head that the Hugging Face Hub reads.

What nobody knows is said to be unknown. Reviewers are counted and not named: a card is published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import strata
from strata.core import FEATURE_STAGES
from strata.counts import counted
from strata.evaluation.intervals import Rate
from strata.publishing.papers.checks import Checks
from strata.publishing.papers.commands import export_command, snapshot_commands
from strata.publishing.papers.facts import Exported, Facts, Source
from strata.publishing.papers.heads import head_of, yaml_of
from strata.publishing.papers.limits import limits_of
from strata.publishing.papers.loading import loading_of
from strata.publishing.papers.markdown import fenced, folded, inline, table
from strata.publishing.papers.rules import rules_of
from strata.publishing.papers.samples import files_lines, sample_lines
from strata.snapshots import commonest_of, moved_away, shares_of

PLOT = "composition.png"
SHOWN = 20  # reasons of a kind; the others are summed up


def card_of(facts: Facts, plot: bool = False) -> str:
    """The card as Markdown. plot: whether PLOT lies beside it."""
    sections = (
        ("", _opening(facts)),
        ("Load it", fenced(loading_of(facts.export.form), "python") if facts.export else []),
        ("What is in it", sample_lines(facts.export) if facts.export else []),
        ("Selection", _selection(facts)),
        ("Composition", _composition(facts, plot)),
        ("How the texts were made", _models(facts)),
        ("How the texts were checked", _checks(facts)),
        ("What people found", _truth(facts)),
        ("Known limits", [f"- {inline(line)}" for line in limits_of(facts)]),
        ("Sources and licences", _sources(facts)),
        ("How to repeat it", _repeat(facts)),
        ("Files", files_lines(facts.export) if facts.export else []),
    )
    lines = ["---", yaml_of(head_of(facts)).rstrip("\n"), "---", "", f"# {inline(facts.title)}"]
    for title, found in sections:
        if body := list(found):
            lines += ["", *([f"## {title}", ""] if title else []), *body]
    return "\n".join(lines) + "\n"


def _opening(facts: Facts) -> Iterator[str]:
    manifest, export = facts.snapshot.manifest, facts.export
    made = f"made by Strata {strata.__version__}"
    if export is None:
        yield f"A snapshot of {counted(facts.count, 'described image')}, {made}. It was not exported yet."
    else:
        yield f"{counted(facts.count, 'image')}, each with {_text_of(export)}, {made}."
    yield ""
    rows = [("licence", facts.about.license or "unknown"), ("languages", ", ".join(facts.languages) or "unknown")]
    rows += [("creator", facts.about.creator)] if facts.about.creator else []
    rows += [("page", facts.about.url)] if facts.about.url else []
    rows += _export_rows(facts.count, export) if export is not None else []
    rows += [("snapshot", f"{facts.snapshot.name}, of {_day(manifest.created_at)}"), ("snapshot's id", manifest.id)]
    yield from table(("", ""), rows)


def _text_of(export: Exported) -> str:
    """What a sample has beside its image."""
    if export.layer.asks_itself:
        return "questions and their answers"
    return f"a text of the layer {inline(export.layer.name)}"


def _export_rows(count: int, export: Exported) -> Iterator[tuple[str, str]]:
    yield "size", f"{_size(export.bytes)} in {counted(export.files, 'file')}"
    yield "words", f"{export.words:,} in the texts, {export.words / max(1, count):,.1f} an image"
    asked = export.request.describe()
    yield "format", f"{asked['format']}, exported on {_day(export.made_at)}"
    if export.asks:
        yield "question", asked["instruction"]
    if asked["boxes"] is not None:
        limit = f", for images of at most {asked['max_pixels']:,} pixels" if "max_pixels" in asked else ""
        yield "boxes in the texts", f"as {asked['boxes']} has them{limit}"
    if export.request.blur_faces:
        yield "faces", "blurred where a detector has found one"


def _size(size: int) -> str:
    unit, name = next((one for one in ((1e9, "GB"), (1e6, "MB")) if size >= one[0]), (1e3, "kB"))
    return f"{size / unit:,.1f} {name}"


def _day(moment: Any) -> str:
    return f"{moment:%Y-%m-%d}"


def _selection(facts: Facts) -> Iterator[str]:
    counts = facts.snapshot.manifest.counts
    yield from (f"- {inline(line)}" for line in rules_of(facts.snapshot.manifest.selection))
    yield ""
    rows = [("succeeded", counts.succeeded), ("filtered by a rule", counts.filtered), ("failed", counts.failed)]
    rows += [(f"left out by the rule {name}", number) for name, number in counts.left_out.items()]
    rows += [("succeeded and pass all of that", counts.passed), ("selected", counts.selected)]
    if facts.export is not None:
        found = facts.export.counts
        left = (("no text in the layer", found["without_text"]), ("the image cannot be read", found["broken"]))
        rows += [("exported", found["exported"]), *((f"left out: {why}", number) for why, number in left if number)]
    yield from table(("rows", "number"), rows)
    checks = facts.checks
    if checks.filtered:
        yield from ("", "Rules and guards that filtered rows:", "", *_reasons("rule", checks.filtered))
    if checks.failed:
        named = Counter({" ".join(filter(None, key)) or "unknown": count for key, count in checks.failed.items()})
        yield from ("", "Rows failed of:", "", *_reasons("stage and error", named))
    if checks.parts_missing:
        yield from ("", f"The rows of {counted(checks.parts_missing, 'part')} that the store has lost are not counted.")


def _reasons(name: str, counts: Counter[str]) -> list[str]:
    rows = counts.most_common(SHOWN)
    rest = counts.total() - sum(count for _, count in rows)
    return table((name, "number"), [*rows, *([("others", rest)] if rest else [])])


def _composition(facts: Facts, plot: bool) -> Iterator[str]:
    manifest = facts.snapshot.manifest
    yield "Rows by the labels of each feature: of all that succeeded, and of those that were selected."
    if plot:
        yield from ("", f"![Shares of labels before and after the selection]({PLOT})")
    for feature, labels in ((name, commonest_of(whole)) for name, whole in manifest.composition.items()):
        shares = zip(*shares_of(labels), strict=True)
        rows = [
            (label, before, f"{share_before:.1%}", after, f"{share_after:.1%}")
            for (label, (before, after)), (share_before, share_after) in zip(labels.items(), shares, strict=True)
        ]
        yield from ("", *table((feature, "succeeded", "share", "selected", "share"), rows))
    if lines := moved_away(manifest.composition, manifest.selection.axes):
        yield from (
            "",
            "Farther from the target than before the selection:",
            "",
            *(f"- {inline(one)}" for one in lines),
        )


def _models(facts: Facts) -> Iterator[str]:
    if len(facts.settings) < len(facts.snapshot.provenance):
        yield "Of some rows the store does not know the profile: their models are unknown."
        yield ""
    rows = [
        (one.profile, one.stage, one.model, one.revision or "of the installed package", one.licence or "unknown")
        for one in facts.models
    ]
    if rows:
        yield from table(("profile", "stage", "model", "revision", "licence"), rows)
    for provenance in facts.snapshot.provenance:
        for name, text in _prompts(provenance.settings, provenance.prompts).items():
            yield from ("", *folded(f"{provenance.profile or 'profile'}: {name}", fenced(text)))


def _prompts(settings: Mapping[str, Any], prompts: Mapping[str, str]) -> dict[str, str]:
    """The prompts of a profile by name: files, and the parameters of stages that are some."""
    found = {f"prompt {name}": text for name, text in prompts.items()}
    for stage, content in settings.get("stages", {}).items():
        for name, value in (content.get("parameters") or {}).items():
            if name.endswith("_prompt") and isinstance(value, str):
                found[f"{stage}, {name}"] = value
    if own := (settings.get("texts") or {}).get("prompt"):
        found["the job's instruction"] = own
    return found


def _checks(facts: Facts) -> Iterator[str]:
    checks = facts.checks
    yield (
        "Each text of a model passes guards, which clean it, cut it back to whole sentences, or reject it (a refusal, "
        "a loop, another language, …). Rows whose text was rejected twice are filtered."
    )
    if checks.kept.total() + checks.dropped.total():
        layers = sorted({*checks.kept, *(layer for layer, _ in checks.dropped)})
        rows = [(layer, checks.kept[layer], _dropped(checks, layer)) for layer in layers if _found(checks, layer)]
        yield from ("", "Entries of layers in the selected rows, and why others were dropped:", "")
        yield from table(("layer", "kept", "dropped"), rows)
    yield ""
    if not checks.verified:
        yield "No verifier has read the descriptions."
        return
    yield (
        f"The verifier has compared {counted(checks.sentences, 'sentence')} of "
        f"{counted(checks.verified, 'description')} with the layers, and has cut or shortened {checks.cut.total():,}."
        f"{_not_of_descriptions(facts, ' It has not read')}"
    )
    if checks.cut:
        yield from ("", *_reasons("reason", checks.cut))
    again, plain = checks.origins["composed_again"], checks.origins["layers"]
    if again or plain:
        yield ""
        yield (
            f"Nothing was left of {again + plain:,} first texts: {again:,} were composed again, and {plain:,} were "
            "written from the layers by rules."
        )


def _not_of_descriptions(facts: Facts, who: str) -> str:
    """That what was said of descriptions was not said of the texts that were exported, if these are others."""
    layer = facts.export.layer if facts.export else None
    if layer is None or layer.name in ("description", "reviewed"):
        return ""
    return f"{who} the texts of the layer {inline(layer.name)}, which were exported."


def _found(checks: Checks, layer: str) -> int:
    return checks.kept[layer] + sum(count for (name, _), count in checks.dropped.items() if name == layer)


def _dropped(checks: Checks, layer: str) -> str:
    reasons = Counter({reason: count for (name, reason), count in checks.dropped.items() if name == layer})
    return ", ".join(f"{reason or 'unknown'} {count:,}" for reason, count in reasons.most_common(SHOWN)) or "none"


def _truth(facts: Facts) -> Iterator[str]:
    """What reviewers said, with intervals; that nobody reviewed it, if so."""
    truth = facts.truth
    if truth is None or not truth.records:
        yield inline(facts.unjudged)
        return
    people = counted(len(truth.reviewers), "reviewer")
    yield (
        f"{people} judged {counted(truth.records, 'record')} of {facts.snapshot.manifest.counts.selected:,}. They may "
        "have chosen which; the intervals (Wilson, 95 %) hold only if they did not."
        f"{_not_of_descriptions(facts, ' They did not judge')}"
    )
    named = {
        "descriptions accepted as they are": truth.accepted,
        "descriptions not rejected": truth.not_rejected,
        "sentences right": truth.sentences,
    }
    yield from ("", *table(("", "share", "interval", "right", "judged"), _rates(named)))
    if truth.reasons:
        yield from ("", *_reasons("what was wrong", Counter(truth.reasons)))


def _rates(named: Mapping[str, Rate]) -> Iterable[tuple[object, ...]]:
    for name, rate in named.items():
        if rate.rate is not None:
            yield name, f"{rate.rate:.3f}", f"{rate.low:.3f} to {rate.high:.3f}", rate.right, rate.judged


def _sources(facts: Facts) -> Iterator[str]:
    given = facts.about.license
    named = f"{inline(given)}, as its owner has named it" if given else "unknown: its owner has named none"
    yield f"Licence of this data set: {named}."
    yield ""
    if facts.sources:
        heads = ("source", "shards", "images", "first and last shard", "licence of the images")
        yield from table(heads, map(_source_row, facts.sources))
    else:
        yield "The snapshot does not name its sources."
    if licences := sorted({one.licence or "unknown" for one in facts.models if one.stage not in FEATURE_STAGES}):
        yield ""
        yield f"Licences of the models that wrote the texts: {inline('; '.join(licences))}."


def _source_row(source: Source) -> tuple[object, ...]:
    numbers = ("unknown" if number is None else f"{number:,}" for number in (source.shards, source.images))
    return source.name, *numbers, " … ".join(source.names) or "unknown", source.licence or "unknown"


def _repeat(facts: Facts) -> Iterator[str]:
    commands = snapshot_commands(facts.snapshot)
    if facts.export is not None:
        commands.append(export_command(facts.snapshot, facts.export.request))
    yield from fenced("\n".join(commands), "sh")
    yield ""
    yield (
        "The sources must be in the store, described by the profiles and revisions above; a snapshot of the same parts "
        "and rows has the same id."
    )

"""`croissant.json`: the metadata of an export as Croissant 1.1, with the fields of its extension for responsible AI.

The vocabulary is that of mlcommons/croissant, docs/croissant-spec-1.1.md (with the context of its appendix) and
docs/croissant-rai-spec.md. The JSON is written here, so that an export needs no further package; the tests validate and
load it with mlcroissant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import strata
from strata.counts import counted
from strata.publishing.papers.facts import Exported, Facts, Source
from strata.publishing.papers.heads import UNKNOWN, head_of
from strata.publishing.papers.limits import limits_of, personal
from strata.publishing.papers.record_sets import distribution_of, record_sets_of
from strata.publishing.papers.rules import rules_of

METADATA = "croissant.json"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
_ALIASES = """arrayShape citeAs column containedIn equivalentProperty excludes extract field fileProperty fileObject
fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex readLines
repeated replace samplingRate sdVersion separator source subField transform unArchive value annotation""".split()
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{alias: f"cr:{alias}" for alias in sorted(_ALIASES)},
}


def metadata_of(facts: Facts, folder: Path, sums: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of an export. sums: the SHA-256 of its files by their paths. Raises OSError, ValueError without one.

    Of what nobody knows, the licence is said to be unknown, because it must be there; the rest is left out.
    """
    if facts.export is None:
        raise ValueError("only an export has files")
    about, form = facts.about, facts.export.form
    found: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": facts.title,
        "description": _description(facts, facts.export),
        "identifier": f"urn:sha256:{facts.snapshot.id}",
        "license": about.license or UNKNOWN,
        "datePublished": f"{facts.export.made_at:%Y-%m-%d}",
        "keywords": head_of(facts)["tags"],
    }
    found |= {"url": about.url} if about.url else {}
    found |= {"creator": {"@type": "sc:Organization", "name": about.creator.strip()}} if about.creator else {}
    found |= {"inLanguage": list(facts.languages)} if facts.languages else {}
    found |= {"distribution": distribution_of(form, folder, sums)}
    found |= {"recordSet": sets} if (sets := record_sets_of(form)) else {}
    return found | responsible_ai(facts, facts.export) | _provenance(facts)


def _description(facts: Facts, export: Exported) -> str:
    return (
        f"{counted(facts.count, 'image')} with texts of the layer {export.layer.name}, from the snapshot "
        f"{facts.snapshot.name}; made by Strata {strata.__version__}. README.md has the counts, models, prompts "
        "and limits."
    )


def responsible_ai(facts: Facts, export: Exported) -> dict[str, Any]:
    """The fields of the extension for responsible AI that Strata can fill from what it has recorded."""
    tools = [_tool(one.stage, one.model, one.revision, one.licence) for one in facts.models]
    found = {
        "rai:dataCollection": "The images and the texts that came with them are those of the sources. "
        "Strata has collected none.",
        "rai:dataCollectionRawData": "; ".join(map(_source, facts.sources)) or "The sources are not known.",
        "rai:dataPreprocessingProtocol": [*rules_of(facts.snapshot.manifest.selection), *_preparation(export)],
        "rai:dataAnnotationProtocol": [*_protocol(facts)],
        "rai:dataAnnotationAnalysis": [*_analysis(facts)],
        "rai:annotationsPerItem": _per_item(facts),
        "rai:machineAnnotationTools": tools,
        "rai:dataLimitations": limits_of(facts),
        "rai:dataBiases": [*_biases(facts)],
        "rai:personalSensitiveInformation": [personal(facts)],
        "rai:dataUseCases": [f"Training of models that answer an image with a text ({export.layer.title})."],
    }
    return {name: value for name, value in found.items() if value}


def _tool(stage: str, model: str, revision: str, licence: str | None) -> str:
    return f"{stage}: {model}, revision {revision or 'of the installed package'}, licence {licence or UNKNOWN}"


def _source(source: Source) -> str:
    shards = "" if source.shards is None else f", {counted(source.shards, 'shard')}"
    images = "" if source.images is None else f", {counted(source.images, 'image')}"
    return f"{source.name}{shards}{images}, licence {source.licence or UNKNOWN}"


def _preparation(export: Exported) -> Iterator[str]:
    kept = "kept" if export.request.keep_metadata else "removed"
    yield f"Images are JPEGs, upright and in the colours of sRGB; their metadata (EXIF, XMP, IPTC) were {kept}."
    yield "What a tokenizer would take for a control token was removed from all texts."


def _protocol(facts: Facts) -> Iterator[str]:
    for one in facts.models:
        yield f"{one.stage} of the profile {one.profile}: {one.model} ({one.backend})"
    if len(facts.settings) < len(facts.snapshot.provenance):
        yield "Of some rows the profile is not known."


def _analysis(facts: Facts) -> Iterator[str]:
    checks = facts.checks
    for rule, count in checks.filtered.most_common():
        yield f"{counted(count, 'row')} filtered by {rule}"
    if checks.verified:
        yield (
            f"The verifier has compared {counted(checks.sentences, 'sentence')} of "
            f"{counted(checks.verified, 'description')} with the layers."
        )
        for reason, count in checks.cut.most_common():
            yield f"{counted(count, 'sentence')} cut or shortened: {reason}"
    truth = facts.truth
    if truth is None or not truth.records:
        yield facts.unjudged
        return
    for name, rate in (("descriptions accepted", truth.accepted), ("sentences right", truth.sentences)):
        if rate.rate is not None:
            interval = f"{rate.low:.3f} to {rate.high:.3f}"
            yield f"{name}: {rate.rate:.3f} (Wilson, 95 %: {interval}), {rate.right:,} of {rate.judged:,}"


def _per_item(facts: Facts) -> str:
    reviewed = "nobody reviewed them"
    if facts.truth is None:
        reviewed = "how many were reviewed is unknown"
    elif facts.truth.records:
        people = counted(len(facts.truth.reviewers), "reviewer")
        reviewed = f"{counted(facts.truth.records, 'row')} judged by {people}"
    return f"one text an image; {reviewed}"


def _biases(facts: Facts) -> Iterator[str]:
    """The commonest label of each feature, as the composition has it."""
    for feature, labels in facts.snapshot.manifest.composition.items():
        selected = sum(after for _, after in labels.values())
        label, (_, most) = max(labels.items(), key=lambda entry: entry[1][1])
        if selected:
            yield f"{feature}: the commonest label is {label}, {most / selected:.1%} of {selected:,}"


def _provenance(facts: Facts) -> dict[str, Any]:
    """From what it was made, and by which activities, in the terms of PROV-O."""
    activities = [
        {"@type": "prov:Activity", "prov:label": f"{one.stage}: {one.model} {one.revision}".strip()}
        for one in facts.models
    ]
    sources = [{"@id": f"urn:strata:{one.name}"} for one in facts.sources]
    found = {"prov:wasDerivedFrom": sources, "prov:wasGeneratedBy": activities}
    return {name: value for name, value in found.items() if value}

"""The YAML head of a data card, as the Hugging Face Hub reads it.

The fields are those of the Hub's documentation ("Dataset Cards", datasetcard.md of huggingface/hub-docs); the tests
read each head with `huggingface_hub.DatasetCardData`. Strings are written as JSON, which YAML reads, so that no text
needs rules of quoting of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from strata.core import LayerSpec
from strata.data.exports import DATA, Form
from strata.publishing.papers.facts import Facts

UNKNOWN = "unknown"  # the Hub's identifier of a licence that nobody has named
# the files that the Hub's viewer and `datasets.load_dataset` take; the other formats are not loaded by them
_FILES: Mapping[Form, str] = MappingProxyType(
    {
        "llava": "train.json",
        "qwen-vl": "train.json",
        "monkey": "train.json",
        "llama-factory": "train.json",
        "ms-swift": "train.jsonl",
        "messages": f"{DATA}/*.parquet",
        "webdataset": "*.tar",
        "parquet": f"{DATA}/*.parquet",
        "hf": "*.arrow",
    }
)
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")


def head_of(facts: Facts) -> dict[str, Any]:
    """The fields of a data set's head, in order. An unknown licence is `unknown`, other fields are left out."""
    fields: dict[str, Any] = _licence(facts.about.license)
    if languages := facts.languages:
        fields["language"] = list(languages)
    if facts.about.title:
        fields["pretty_name"] = facts.about.title.strip()
    fields["size_categories"] = [size_of(facts.count)]
    tags = ["strata", "croissant"]
    if facts.export is not None:
        layer, form = facts.export.layer, facts.export.form
        fields["annotations_creators"] = ["found" if layer.name == "alt_text" else "machine-generated"]
        fields["task_categories"] = _tasks(layer)
        tags += [form, f"layer-{layer.name}"]
        if form in _FILES:
            files = [{"split": "train", "path": _FILES[form]}]
            fields["configs"] = [{"config_name": "default", "data_files": files}]
    fields["tags"] = tags
    return fields


def _licence(named: str | None) -> dict[str, Any]:
    if named is None:
        return {"license": UNKNOWN}
    if "://" in named:
        return {"license": "other", "license_name": "see-license-link", "license_link": named}
    return {"license": named.lower()}


def _tasks(layer: LayerSpec) -> list[str]:
    if layer.asks_itself:
        return ["visual-question-answering"]
    tasks = ["object-detection"] if layer.boxed and not layer.quoted else []
    return [*tasks, "image-to-text"]


def size_of(count: int) -> str:
    """The Hub's category of a number of rows; the limits are the powers of ten from 1,000 on."""
    return _SIZES[min(max(0, len(str(count)) - 3), len(_SIZES) - 1)]


def yaml_of(fields: Mapping[str, Any]) -> str:
    """Fields as YAML: mappings, lists and strings. The strings must be printable."""
    return "\n".join(_lines(fields)) + "\n"


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inside in value.items():
            if isinstance(inside, Mapping | list):
                yield f"{name}:"
                yield from _lines(inside)
            else:
                yield f"{name}: {json.dumps(inside, ensure_ascii=False)}"
    elif isinstance(value, Sequence):
        for entry in value:
            if isinstance(entry, Mapping):
                first, *rest = _lines(entry)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
            else:
                yield f"- {json.dumps(entry, ensure_ascii=False)}"

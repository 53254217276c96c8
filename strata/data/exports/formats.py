"""The export formats: the writer of each, and how it writes boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from strata.data.boxes import BOX_FORMS, BoxForm
from strata.data.exports import conversations, shards, tables
from strata.data.exports.samples import Write

Form = Literal[
    "llava",
    "qwen-vl",
    "monkey",
    "llama-factory",
    "ms-swift",
    "messages",
    "webdataset",
    "mds",
    "parquet",
    "hf",
]


@dataclass(frozen=True)
class Format:
    """A format.

    boxes: the form of boxes in its texts unless another is asked for; None: the texts have none, because models of
    several families are trained from it. paths: whether it names images by paths, which can have a root. prompts: the
    user's turn for layers that its model asks for in words of its own.
    """

    write: Write
    boxes: BoxForm | None = None
    paths: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)


FORMATS: Mapping[Form, Format] = MappingProxyType(
    {
        "llava": Format(conversations.write_llava, BOX_FORMS["llava"], paths=True),
        "qwen-vl": Format(conversations.write_qwen_vl, BOX_FORMS["qwen-vl"], paths=True),
        "monkey": Format(
            conversations.write_monkey, BOX_FORMS["qwen-vl"], paths=True, prompts=conversations.MONKEY_PROMPTS
        ),
        "llama-factory": Format(conversations.write_llama_factory, paths=True),
        "ms-swift": Format(conversations.write_swift, conversations.SWIFT_BOXES, paths=True),
        "messages": Format(tables.write_messages),
        "webdataset": Format(shards.write_webdataset),
        "mds": Format(shards.write_mds),
        "parquet": Format(tables.write_parquet),
        "hf": Format(tables.write_dataset),
    }
)

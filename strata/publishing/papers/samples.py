"""What is in an export, for its card: the fields of a sample, and the first text as an example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from strata.data.exports import DATA, PROVENANCE, Form
from strata.publishing.papers.facts import Exported
from strata.publishing.papers.markdown import fenced, table

LONGEST = 1500  # characters of the example
_KEY = "the image's name in its source"
_TABLE = {
    "key": _KEY,
    "image": "the picture as JPEG, upright, in sRGB",
    "text": "the text of the layer",
    "width": "of the picture, in pixels",
    "height": "of the picture, in pixels",
    "boxes": "phrase, box (left, top, right, bottom in pixels) and mask (COCO run-length encoding) of each entry, for "
    "layers that have some",
}
_TURNS = "the question, with <image> where the picture is, and the text of the layer as the answer"
_PATH = "the path of the picture, from this folder"
_MESSAGES = {"messages": f"role and content: {_TURNS}"}
FIELDS: Mapping[Form, Mapping[str, str]] = MappingProxyType(
    {
        "llava": {"id": _KEY, "image": _PATH, "conversations": f"from and value: {_TURNS}"},
        "qwen-vl": {
            "id": _KEY,
            "conversations": "from and value: the question, with the whole path of the picture between <img> and "
            "</img>, and the text of the layer as the answer",
        },
        "monkey": {
            "id": _KEY,
            "conversations": "from and value: the whole path of the picture between <img> and </img> with the "
            "question, and the text of the layer as the answer",
        },
        "llama-factory": {"id": _KEY, **_MESSAGES, "images": f"{_PATH}; one a sample"},
        "ms-swift": {
            "id": _KEY,
            **_MESSAGES,
            "images": f"{_PATH}; one a sample",
            "objects": "ref and bbox: phrases and boxes in pixels, for layers that have some",
        },
        "messages": {
            "key": _KEY,
            "messages": "role and content: the question, and the text of the layer as the answer",
            "images": "the picture as JPEG, upright, in sRGB; one a sample",
        },
        "webdataset": {
            ".jpg": "the picture as JPEG, upright, in sRGB",
            ".txt": "the text of the layer",
            ".json": "key, text, width and height, and the boxes of layers that have some",
        },
        "mds": {**_TABLE, "instruction": "the question"},
        "parquet": _TABLE,
        "hf": _TABLE,
    }
)
_PLACES: Mapping[Form, str] = MappingProxyType(
    {
        "ms-swift": "A line of `train.jsonl` is a sample; the pictures are in `images/`.",
        "messages": f"A row of the Parquet files in `{DATA}/` is a sample.",
        "webdataset": "A sample is a picture with the files of the same name in a tar.",
        "mds": "A sample is a row of the shards that `index.json` names.",
        "parquet": f"A row of the Parquet files in `{DATA}/` is a sample.",
        "hf": "A row of the Arrow files is a sample.",
    }
)
_ARRAY = "An entry of `train.json` is a sample; the pictures are in `images/`."


def sample_lines(export: Exported) -> Iterator[str]:
    """The lines of the card's section on what is in an export."""
    yield f"{_PLACES.get(export.form, _ARRAY)} Its fields:"
    yield ""
    yield from table(("field", "what it is"), FIELDS[export.form].items())
    if export.example:
        turns, cut = "\n".join(export.example), "\n…"
        yield from ("", "The text of the first sample:", "")
        yield from fenced(turns if len(turns) <= LONGEST else turns[:LONGEST] + cut, "text")


def files_lines(export: Exported) -> Iterator[str]:
    """The lines of the card's section on the files beside the data."""
    yield "- `SHA256SUMS`: the checksum of every other file; `sha256sum -c SHA256SUMS` compares them."
    yield f"- `{PROVENANCE}`: the snapshot's selection and counts, and the profiles with all settings and prompts."
    yield "- `croissant.json`: this card for machines, in [Croissant](https://docs.mlcommons.org/croissant/)."
    if export.counts["broken"]:
        yield "- `_skipped.jsonl`: the images that could not be read, with the reasons."

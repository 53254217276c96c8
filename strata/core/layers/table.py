"""The table of layers: the fields of a record that hold them, and the spec of each."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from strata.core.layers.entries import Caption, Description, ObjectMask, Region, Tag, TextLine
from strata.core.layers.spec import LayerSpec


class Layers(BaseModel):
    """The layers of a record, in order: null where not computed, an empty list where nothing was found."""

    alt_text: Annotated[
        str | None,
        LayerSpec(
            title="alt text",
            entry="alt text",
            instruction="Write an alt text for this image.",
        ),
    ] = None
    caption: Annotated[
        Caption | None,
        LayerSpec(
            title="caption",
            entry="caption",
            instruction="Describe this image in one sentence.",
            words="text",
            stage="captioner",
            matched=True,
            drawing="strip",
        ),
    ] = None
    regions: Annotated[
        list[Region] | None,
        LayerSpec(
            title="regions",
            entry="region",
            instruction="Name what is in this image.",
            where="Name what is in this image, and where.",
            words="phrase",
            stage="detector",
            whole_image=True,
            matched=True,
            drawing="box",
        ),
    ] = None
    objects: Annotated[
        list[ObjectMask] | None,
        LayerSpec(
            title="objects",
            entry="object",
            instruction="Name the objects in this image.",
            where="Name the objects in this image, and where they are.",
            words="phrase",
            stage="segmenter",
            matched=True,
            drawing="mask",
            feature="masks",
        ),
    ] = None
    text: Annotated[
        list[TextLine] | None,
        LayerSpec(
            title="text",
            entry="line",
            instruction="Write the text that can be read in this image.",
            where="Write the text that can be read in this image, line by line, and where it is.",
            words="text",
            stage="ocr",
            whole_image=True,
            quoted=True,
            separator="\n",
            drawing="quote",
            feature="lines",
        ),
    ] = None
    tags: Annotated[
        list[Tag] | None,
        LayerSpec(
            title="tags",
            entry="tag",
            instruction="List words for what is in this image.",
            words="word",
            stage="tagger",
            whole_image=True,
            separator=", ",
        ),
    ] = None
    description: Annotated[
        Description | None,
        LayerSpec(
            title="description",
            entry="sentence",
            instruction="Describe this image in detail.",
            words="text",
            stage="composer",
            drawing="strip",
        ),
    ] = None


def inner_type(annotation: Any) -> Any:
    """The type of an annotation without `Annotated` and without None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (kind for kind in get_args(annotation) if kind is not types.NoneType)
        return inner_type(annotation)
    return annotation


def _specs(model: type[BaseModel]) -> dict[str, LayerSpec]:
    specs: dict[str, LayerSpec] = {}
    for name, field in model.model_fields.items():
        # each field must have exactly one LayerSpec; otherwise the unpacking fails at import
        (spec,) = (item for item in field.metadata if isinstance(item, LayerSpec))
        # name, model and many are derived from the field, so that they cannot contradict it
        kind = inner_type(field.annotation)
        many = get_origin(kind) is list
        entry = inner_type(get_args(kind)[0]) if many else kind
        specs[name] = dataclasses.replace(spec, name=name, model=entry, many=many, feature=spec.feature or name)
    return specs


LAYERS: Mapping[str, LayerSpec] = types.MappingProxyType(_specs(Layers))
THINGS = tuple(spec for spec in LAYERS.values() if spec.names_things)

"""Conversation files beside a folder of images: LLaVA, Qwen-VL, Monkey, LLaMA-Factory and ms-swift."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from strata.data.boxes import BOX_FORMS, BoxForm, Frame, PhraseBox, bbox_2d
from strata.data.exports.names import NameTable
from strata.data.exports.samples import ExportSample, Target, files

# Monkey's prompts (Yuliang-Liu/Monkey, README, "Inference"; the paper, arXiv 2311.06607, section 3.3); all others are
# a question with "Answer:"
MONKEY_PROMPTS = {
    "description": "Generate the detailed caption in English:",
    "caption": "Generate the caption in English:",
}
IMAGE = "<image>"  # where the image is in a turn, for all tools but Qwen-VL's and Monkey's
REFERENCE, BOX = "<ref-object>", "<bbox>"  # what ms-swift replaces with the phrase and the box, in its model's form

Entry = Callable[[ExportSample, str], dict[str, Any]]


def write_llava(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write `train.json` and `images/` for LLaVA's training: `--data_path DIR/train.json --image_folder DIR`.

    The format of haotian-liu/LLaVA, docs/Finetune_Custom_Data.md, and of Qwen's own training (QwenLM/Qwen3-VL,
    qwen-vl-finetune/README.md).
    """

    def entry(sample: ExportSample, image: str) -> dict[str, Any]:
        turns = _turns(target.conversation(sample), f"{IMAGE}\n", ("human", "gpt"))
        return {"image": image, "conversations": turns}

    _write_array(target, samples, entry)


def write_qwen_vl(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write `train.json` and `images/` for the training of the first Qwen-VL.

    The format of QwenLM/Qwen-VL, README, "Finetuning". Its loader opens images by the paths in the file, so they are
    absolute, unless the target has another root.
    """

    def entry(sample: ExportSample, image: str) -> dict[str, Any]:
        start = f"Picture 1: <img>{image}</img>\n"
        return {"conversations": _turns(target.conversation(sample), start, ("user", "assistant"))}

    _write_array(_absolute(target), samples, entry)


def write_monkey(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write `train.json` and `images/` for Monkey's training: the image, Monkey's prompt, and the answer.

    The format of Yuliang-Liu/Monkey, finetune_multitask.py: it joins the values of the two turns as they are, so the
    prompt ends with a space. Paths of images are absolute as for Qwen-VL.
    """

    def entry(sample: ExportSample, image: str) -> dict[str, Any]:
        question = f"<img>{image}</img> {monkey_prompt(target.instruction)} "
        return {"conversations": _turns([(question, sample.text)], "", ("user", "assistant"))}

    _write_array(_absolute(target), samples, entry)


def monkey_prompt(instruction: str) -> str:
    """An instruction as Monkey asks it: its own prompts for captions as they are, all others with "Answer:"."""
    instruction = instruction.strip()
    return instruction if instruction.endswith(":") else f"{instruction} Answer:"


def write_llama_factory(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write `dataset_info.json`, `train.json` and `images/` for LLaMA-Factory: `dataset_dir: DIR`, `dataset: NAME`.

    The format "sharegpt" of hiyouga/LLaMA-Factory, data/README.md. The paths of images are relative to its `media_dir`,
    which is its `dataset_dir` by default. NAME is the snapshot's.
    """

    def entry(sample: ExportSample, image: str) -> dict[str, Any]:
        return {"messages": messages(target.conversation(sample), IMAGE), "images": [image]}

    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    about = {"file_name": "train.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    text = json.dumps({target.name: about}, indent=2) + "\n"
    (target.folder / "dataset_info.json").write_text(text, encoding="utf-8")
    _write_array(target, samples, entry)


def write_swift(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write `train.jsonl` and `images/` for ms-swift: `--dataset DIR/train.jsonl`, with `ROOT_IMAGE_DIR=DIR`.

    The format of modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md. Boxes are in pixels in `objects`;
    ms-swift writes them into the answer in the form of the model that it trains.
    """

    with (target.folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for sample, image in _written_images(target, samples):
            turns = messages(target.conversation(sample), IMAGE)
            line: dict[str, Any] = {"id": sample.key, "messages": turns, "images": [image]}
            if target.boxes is SWIFT_BOXES:
                line["objects"] = _objects(sample)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _swift_answer(places: Sequence[PhraseBox], frame: Frame) -> str:
    marked = [place._replace(phrase=REFERENCE) for place in places]
    return bbox_2d([BOX] * len(marked), marked, frame).replace(f'"{BOX}"', BOX)


# JSON as Qwen's, in which ms-swift puts each phrase and each box itself
SWIFT_BOXES = BoxForm(_swift_answer, BOX_FORMS["qwen3"].request, (REFERENCE, BOX))


def _objects(sample: ExportSample) -> dict[str, Any]:
    # a phrase is put between the quotes of JSON as it is
    references = [json.dumps(place.phrase, ensure_ascii=False)[1:-1] for place in sample.boxes]
    boxes = [[round(float(value), 1) for value in place.box] for place in sample.boxes]
    return {"ref": references, "bbox": boxes}


def messages(pairs: Sequence[tuple[str, str]], start: str = "") -> list[dict[str, str]]:
    """A conversation with the roles of chat templates. start: what stands before its first question."""
    turns = _turns(pairs, start, ("user", "assistant"))
    return [{"role": turn["from"], "content": turn["value"]} for turn in turns]


def _absolute(target: Target) -> Target:
    """The target whose images are named by whole paths, unless another root was asked for."""
    return target if target.image_root is not None else replace(target, image_root=str(target.final))


def _turns(pairs: Sequence[tuple[str, str]], start: str, roles: tuple[str, str]) -> list[dict[str, str]]:
    """A conversation. start: what stands before its first question."""
    texts = [text for pair in pairs for text in pair]
    return [{"from": roles[i % 2], "value": text if i else start + text} for i, text in enumerate(texts)]


def _write_array(target: Target, samples: Iterator[ExportSample], entry: Entry) -> None:
    # write the array element by element, without a list of all samples in memory
    before = "[\n"
    with (target.folder / "train.json").open("w", encoding="utf-8") as file:
        for sample, image in _written_images(target, samples):
            file.write(before + json.dumps({"id": sample.key, **entry(sample, image)}, ensure_ascii=False))
            before = ",\n"
        file.write("\n]\n")


def _written_images(target: Target, samples: Iterator[ExportSample]) -> Iterator[tuple[ExportSample, str]]:
    """Write the image of each sample; yield the sample with the image's path below the target's root."""
    with NameTable(target.folder) as table:
        for number, named in files(samples):
            folder = f"images/{number:05d}"
            (target.folder / folder).mkdir(parents=True)
            for sample in named:
                image = f"{folder}/{sample.name}.jpg"
                table.note(sample.key, sample.name, image)
                (target.folder / image).write_bytes(sample.jpeg)
                yield sample, posixpath.join(target.image_root or "", image)

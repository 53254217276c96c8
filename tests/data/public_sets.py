"""Small files of public data sets in the shape in which their authors publish them, where monkey.toml expects them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes import jpeg

PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 144]>>endobj
trailer<</Root 1 0 R>>
"""  # one empty page of 1 by 2 inches


def put(path: Path, value: Any) -> None:
    """Write bytes, a list of JSON Lines (path: .jsonl), or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, bytes):
        path.write_bytes(value)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(line) + "\n" for line in value), encoding="utf-8")
    else:
        path.write_text(json.dumps(value), encoding="utf-8")


def _vqa(folder: Path, name: str, count: int, prefix: str, **more: Any) -> None:
    head = {
        "info": {"year": 2017},
        "license": {"name": "CC BY 4.0"},
        "data_type": "mscoco",
        "data_subtype": "train2014",
    }
    numbers = range(count)
    put(
        folder / name / f"{prefix}OpenEnded_mscoco_train2014_questions.json",
        {
            **head,
            "task_type": "Open-Ended",
            "questions": [{"image_id": 9, "question": f"{name} {n}?", "question_id": 9000 + n} for n in numbers],
        },
    )
    ten = ["net"] * 4 + ["mesh"] * 5 + ["web"]
    answers = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number} for number, answer in enumerate(ten, 1)
    ]
    put(
        folder / name / f"{prefix}mscoco_train2014_annotations.json",
        {
            **head,
            "annotations": [
                {
                    "question_type": "what is",
                    "answers": answers,
                    "image_id": 9,
                    "answer_type": "other",
                    "question_id": 9000 + n,
                    **more,
                }
                for n in numbers
            ],
        },
    )
    put(folder / "coco/train2014/COCO_train2014_000000000009.jpg", jpeg(109))


def vqav2(folder: Path, count: int) -> None:
    """The questions and annotations of VQAv2; the majority of the ten answers is `mesh`."""
    _vqa(folder, "vqav2", count, "v2_", multiple_choice_answer="mesh")


def okvqa(folder: Path, count: int) -> None:
    """The questions and annotations of OK-VQA, which has no `multiple_choice_answer`."""
    _vqa(folder, "okvqa", count, "", confidence=3)


def gqa(folder: Path, count: int) -> None:
    """train_balanced_questions.json of GQA."""
    entry = {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (2486325)"}],
        "entailed": ["02930160"],
        "equivalent": ["02930152"],
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": "yes",
        "semanticStr": "select: sky (2486325)->verify color: dark [0]",
        "annotations": {"answer": {}, "question": {"2": "2486325"}, "fullAnswer": {"2": "2486325"}},
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
    }
    put(folder / "gqa/train_balanced_questions.json", {f"{2930152 + n:08d}": entry for n in range(count)})
    put(folder / "gqa/images/2354786.jpg", jpeg(110))


def coco_captions(folder: Path, count: int) -> None:
    """captions_train2014.json of COCO."""
    image = {
        "license": 5,
        "file_name": "COCO_train2014_000000000009.jpg",
        "coco_url": "-",
        "height": 480,
        "width": 640,
        "date_captured": "2013-11-19 20:40:11",
        "flickr_url": "-",
        "id": 9,
    }
    captions = [{"image_id": 9, "id": 661 + n, "caption": f"A plate of food, {n}.\n"} for n in range(count)]
    put(
        folder / "coco/annotations/captions_train2014.json",
        {"info": {}, "images": [image], "licenses": [], "annotations": captions},
    )
    put(folder / "coco/train2014/COCO_train2014_000000000009.jpg", jpeg(109))


def scienceqa(folder: Path, count: int) -> None:
    """problems.json of ScienceQA; every second problem has no image."""
    entries = {}
    for n in range(count):
        image = "image.png" if n % 2 == 0 else None
        entries[str(n + 1)] = {
            "question": "Which is farther north?",
            "choices": ["West Virginia", "Louisiana", "Oklahoma"],
            "answer": 0,
            "hint": "A map." if n % 2 else "",
            "image": image,
            "task": "closed choice",
            "grade": "grade2",
            "subject": "social science",
            "topic": "geography",
            "category": "Geography",
            "skill": "Read a map",
            "lecture": "Maps …",
            "solution": "To find …",
            "split": ("train", "val")[n % 4 == 3],
        }
        if image:
            put(folder / f"scienceqa/images/train/{n + 1}/image.png", jpeg(111))
    put(folder / "scienceqa/problems.json", entries)


def vizwiz(folder: Path, count: int) -> None:
    """Annotations/train.json of VizWiz."""
    said = ["basil leaves", "basil", "basil leaves", "basil", "basil", "unanswerable"]
    answers = [{"answer_confidence": "yes", "answer": answer} for answer in said]
    entry = {"question": "What's this?", "answers": answers, "answer_type": "other", "answerable": 1}
    put(
        folder / "vizwiz/Annotations/train.json",
        [{"image": "VizWiz_train_00000000.jpg", **entry, "answerable": n % 2} for n in range(count)],
    )
    put(folder / "vizwiz/train/VizWiz_train_00000000.jpg", jpeg(112))


def _open_image(n: int) -> dict[str, Any]:
    return {
        "image_id": "0054c91397f2fe05",
        "image_classes": ["Poster"],
        "flickr_original_url": "-",
        "flickr_300k_url": "-",
        "image_width": 1024,
        "image_height": 730,
        "set_name": "train",
    }


def textcaps(folder: Path, count: int) -> None:
    """TextCaps_0.1_train.json."""
    entry = {
        "caption_str": "A poster says game on.",
        "caption_tokens": ["a", "poster"],
        "reference_strs": ["A poster says game on.", "A poster with text."],
        "reference_tokens": [["a"], ["a"]],
        "image_name": "0054c91397f2fe05",
        "image_path": "train/0054c91397f2fe05.jpg",
    }
    data = [{**_open_image(n), **entry, "caption_id": n + 1} for n in range(count)]
    put(folder / "textcaps/TextCaps_0.1_train.json", {"dataset_name": "textcaps", "data": data})
    put(folder / "textvqa/train_images/0054c91397f2fe05.jpg", jpeg(113))


def textvqa(folder: Path, count: int) -> None:
    """TextVQA_0.5.1_train.json."""
    ten = ["nous les gosses", "nous les", *["nous les gosses"] * 5, "gosses", "dakota", "x"]
    entry = {"question": "what is the brand?", "question_tokens": ["what"], "answers": ten}
    data = [{**entry, **_open_image(n), "question_id": n} for n in range(count)]
    put(folder / "textvqa/TextVQA_0.5.1_train.json", {"dataset_type": "train", "dataset_name": "textvqa", "data": data})
    put(folder / "textvqa/train_images/0054c91397f2fe05.jpg", jpeg(113))


def ocrvqa(folder: Path, count: int) -> None:
    """dataset.json of OCR-VQA: two questions a book, the last book of the split `val`."""
    entry = {
        "imageURL": "http://example.com/images/I/51.jpg",
        "questions": ["Who wrote this book?", "What is the title of this book?"],
        "answers": ["Sandra Boynton", "Mom's Family Calendar 2016"],
        "title": "Mom's Family Calendar 2016",
        "authorName": "Sandra Boynton",
        "genre": "Calendars",
    }
    books = {f"{761183272 + n:010d}": {**entry, "split": 1} for n in range(count // 2)}
    put(folder / "ocrvqa/dataset.json", {**books, "0000000001": {**entry, "split": 2}})
    for name in books:
        put(folder / f"ocrvqa/images/{name}.jpg", jpeg(114))


def ai2d(folder: Path, count: int) -> None:
    """The folder `questions` of AI2D: one file an image, two questions each, one of them on letters."""
    for n in range(count // 2):
        plain = {"abcLabel": False, "answerTexts": ["leaf", "{}", "root", "stem"], "correctAnswer": 2}
        letters = {"abcLabel": True, "answerTexts": ["ears", "nose", "mouth", "face"], "correctAnswer": 3}
        questions = {
            "What is below?": {**plain, "questionId": f"{n}.png-0"},
            "What is A in the diagram?": {**letters, "questionId": f"{n}.png-1"},
        }
        put(folder / f"ai2d/questions/{n}.png.json", {"imageName": f"{n}.png", "questions": questions})
        put(folder / f"ai2d/images/{n}.png", jpeg(115))
        put(folder / f"ai2d/abc_images/{n}.png", jpeg(116))
    put(folder / "ai2d/questions/9999.png.json", {"imageName": "9999.png", "questions": questions})
    (folder / "ai2d/ai2d_test_ids.csv").write_text("9999\n")


def docvqa(folder: Path, count: int) -> None:
    """train_v1.0.json of DocVQA."""
    entry = {
        "question": "what is the contact person name mentioned in letter?",
        "image": "documents/xnbl0037_1.png",
        "docId": 279,
        "ucsf_document_id": "xnbl0037",
        "ucsf_document_page_no": "1",
        "answers": ["P. Carter", "p. carter"],
        "data_split": "train",
    }
    data = [{"questionId": 338 + n, **entry} for n in range(count)]
    put(
        folder / "docvqa/train/train_v1.0.json",
        {"dataset_name": "docvqa", "dataset_split": "train", "dataset_version": "1.0", "data": data},
    )
    put(folder / "docvqa/train/documents/xnbl0037_1.png", jpeg(117))


def infovqa(folder: Path, count: int) -> None:
    """infographicsVQA_train_v1.0.json."""
    entry = {
        "question": "Which social platform has heavy female audience?",
        "image_local_name": "20471.jpeg",
        "image_url": "-",
        "ocr_output_file": "20471.json",
        "answers": ["pinterest"],
        "data_split": "train",
    }
    data = [{"questionId": 65718 + n, **entry} for n in range(count)]
    head = {"dataset_name": "infographicVQA", "dataset_version": "v1.0", "dataset_split": "train"}
    put(folder / "infovqa/infographicsVQA_train_v1.0.json", {**head, "data": data})
    put(folder / "infovqa/images/20471.jpeg", jpeg(118))


def chartqa(folder: Path, count: int) -> None:
    """train_human.json and train_augmented.json of ChartQA."""
    entry = {"imgname": "41699051005347.png", "query": "How many food items are shown?", "label": "14"}
    put(folder / "chartqa/train/train_human.json", [entry] * (count // 2))
    put(folder / "chartqa/train/train_augmented.json", [entry] * (count - count // 2))
    put(folder / "chartqa/train/png/41699051005347.png", jpeg(119))


def put_contents(folder: Path, documents: dict[str, list[str]]) -> None:
    """documents_content.jsonl of DUE: the tokens of documents, and which of them are on each of their pages."""
    lines = []
    for name, pages in documents.items():
        tokens: list[str] = []
        spans = []
        for page in pages:
            spans.append([len(tokens), len(tokens) + len(page.split())])
            tokens += page.split()
        structures = {"pages": {"structure_value": spans, "positions": [[0, 0, 9, 9]] * len(pages)}}
        layer = {"doc_id": name, "tokens": tokens, "positions": [], "scores": [], "structures": structures}
        contents = [{"tool_name": "tesseract", "text": " ".join(tokens), "tokens_layer": layer}]
        lines.append({"name": name, "contents": contents})
    put(folder / "documents_content.jsonl", lines)


def _due(folder: Path, name: str, annotations: list[dict[str, Any]]) -> None:
    documents = [
        {
            "name": f"{name}{n:03d}",
            "language": "en",
            "annotations": [{"id": f"{n}", "metadata": {}, **annotation}],
            "split": "train",
        }
        for n, annotation in enumerate(annotations)
    ]
    put(folder / f"due/{name}/train/document.jsonl", documents)
    put_contents(folder / f"due/{name}/train", {f"{name}{n:03d}": ["a page"] for n in range(len(documents))})


def deepform(folder: Path, count: int) -> None:
    """document.jsonl of DeepForm in DUE, with PDF files."""
    values = [{"value": "BLOOMBERG", "value_variants": ["BLOOMBERG", "Bloomberg"]}]
    _due(folder, "DeepForm", [{"key": "advertiser", "values": values}] * count)
    for n in range(count):
        put(folder / f"due/DeepForm/pdfs/DeepForm{n:03d}.pdf", PDF)


def klc(folder: Path, count: int) -> None:
    """document.jsonl of Kleister Charity in DUE, with a folder of pages for each document."""
    annotation = {"key": "charity_name", "values": [{"value": "Cancer Aid"}]}
    _due(folder, "KleisterCharity", [annotation] * count)
    for n in range(count):
        put(folder / f"due/KleisterCharity/pdfs/KleisterCharity{n:03d}/0.png", jpeg(120))


def wtq(folder: Path, count: int) -> None:
    """document.jsonl of WikiTableQuestions in DUE."""
    values = [{"value": "2001"}, {"value": "2003"}]
    _due(folder, "WikiTableQuestions", [{"key": "in which years did he win?", "values": values}] * count)
    for n in range(count):
        put(folder / f"due/WikiTableQuestions/pdfs/WikiTableQuestions{n:03d}.png", jpeg(121))


def tabfact(folder: Path, count: int) -> None:
    """document.jsonl of TabFact in DUE."""
    annotations = [{"key": "the wildcats won", "values": [{"value": str(n % 2)}]} for n in range(count)]
    _due(folder, "TabFact", annotations)
    for n in range(count):
        put(folder / f"due/TabFact/pdfs/TabFact{n:03d}_0.jpg", jpeg(122))


def visualmrc(folder: Path, count: int) -> None:
    """train.jsonl of VisualMRC: two questions an image."""
    pair = {
        "question": {"text": "What is shown?", "tokens": ["What", "is", "shown", "?"]},
        "answer": {"text": "A web page is shown.", "tokens": ["A"]},
        "relevant": ["ab"],
    }
    entry = {
        "url": "-",
        "screenshot_filename": "screenshot/1.png",
        "image_filename": "images/train/1.png",
        "bounding_boxes": [{"id": "ab", "structure": "Title", "shape": {}, "ocr_info": []}],
        "qa_data": [pair, pair],
    }
    put(folder / "visualmrc/data/train.jsonl", [{"id": f"00000{n}", **entry} for n in range(count // 2)])
    put(folder / "visualmrc/images/train/1.png", jpeg(123))


def mix(folder: Path) -> dict[str, Any]:
    """A file in the shape of LLaVA's mix665k: an image, text only, several images, a system turn."""
    put(folder / "images/a.jpg", jpeg(150))
    put(folder / "images/b.jpg", jpeg(151))

    def said(*texts: str) -> list[dict[str, str]]:
        return [{"from": ("human", "gpt")[turn % 2], "value": text} for turn, text in enumerate(texts)]

    entries = [
        {"id": "1-image", "image": "a.jpg", "conversations": said("<image>\nWhat?", "A bus.", "And?", "No.")},
        {"id": "2-text", "model": "", "conversations": said("Hi.", "Hello.")},
        {"id": "3-two", "image": ["a.jpg", "b.jpg"], "conversations": said("<image>\nand <image>: same?", "No.")},
        {"id": "4-unplaced", "image": ["a.jpg", "b.jpg"], "conversations": said("Same?", "No.")},
        {"id": "5-system", "conversations": [{"from": "system", "value": "Be short."}, *said("Hi.", "Hello.")]},
        {"id": "6-null", "image": None, "conversations": said("Hi.", "Hello.")},
    ]
    put(folder / "mix.json", entries)
    return {"name": "mix", "conversations": "mix.json", "images": "images"}


SETS: dict[str, Callable[[Path, int], None]] = {  # by the names of the sources in monkey.toml
    "COCO caption": coco_captions,
    "TextCaps": textcaps,
    "VQAv2": vqav2,
    "OKVQA": okvqa,
    "GQA": gqa,
    "ScienceQA": scienceqa,
    "VizWiz": vizwiz,
    "TextVQA": textvqa,
    "OCRVQA": ocrvqa,
    "AI2D": ai2d,
    "DocVQA": docvqa,
    "ChartQA": chartqa,
    "InfoVQA": infovqa,
    "DeepForm": deepform,
    "KLC": klc,
    "WTQ": wtq,
    "TabFact": tabfact,
    "VisualMRC": visualmrc,
}

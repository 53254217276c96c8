"""What the scores of images are worth, on pictures whose truth is known.

- `sharpness`: the labelled photographs against the same ones blurred, shaken, enlarged. AUC: the probability that a
  photograph has a greater value than a blurred one, which may be another photograph.
- `faces`: the labelled photographs, in which the faces were counted by looking; and the 100 faces and 100 other patches
  of LFW that scikit-image has (25 × 25 grey pixels), put into a photograph without faces at several sizes.
- `nsfw`: false alarms on the photographs and on LFW's faces. There are no pictures here that should be found.
- `aesthetic`: the labelled photographs against the same ones blurred, enlarged, darkened. There are no ratings here.
- `personal`: signs with personal data and signs with other numbers, drawn on photographs, read by the profile's OCR.
- `watermarks`: names of agencies drawn on photographs, read by the same OCR, and kept by the profile's threshold.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from sklearn.metrics import roc_auc_score

from bench.curation.signs import AGENCIES, signs, watermarked
from models.building import build_stage, load_stages
from samples.labels import photographs
from strata.core import FEATURE_STAGES, Profile
from strata.privacy import personal_data

Figures = dict[str, float]
Pictures = dict[str, Image.Image]
# how many faces are seen, of at least 12 pixels from chin to hair; turned ones count if an eye is seen
FACES = {
    **{"astronaut": 1, "grace-hopper": 1, "no-double-parking": 1},
    **{"men-and-ball": 2, "four-musicians": 4, "mariachi": 5},
}
# persons who are too small to say whether their faces are seen
UNSURE = ("orchestra", "baseball-field", "copy-centre", "priory-galleries", "kites", "castle", "mountains", "canyon")
SIDES = (16, 24, 48, 96)  # pixels of LFW's patches in a photograph
GROUNDS = ("meadow", "lake", "kitchen", "brick", "wooden-house")
KERNEL = 11  # pixels by which a picture is shaken


def measure(profile: Profile, only: Sequence[str], count: int, seed: int) -> dict[str, Figures]:
    """The figures of some scores, all by default. count: signs of each kind of personal data."""
    found = {}
    for name in only or [name for name in MEASURES if name not in FEATURE_STAGES or name in profile.stages]:
        began = time.perf_counter()
        found[name] = MEASURES[name](profile, count, seed)
        found[name]["seconds"] = time.perf_counter() - began
    return found


def _pictures() -> Pictures:
    found = {}
    for each in photographs():
        with Image.open(each.file) as opened:
            found[each.name] = opened.convert("RGB")
    return found


def _run(profile: Profile, name: str, items: Sequence[Any]) -> list[Any]:
    stage = build_stage(name, profile.stages[name])
    load_stages({name: stage})
    return stage.run(items)


def _shaken(image: Image.Image) -> Image.Image:
    """The image as a camera that moved sidewards sees it."""
    pixels = np.asarray(image, np.float32)
    moved = np.mean([np.roll(pixels, step, axis=1) for step in range(KERNEL)], axis=0)
    return Image.fromarray(moved.astype(np.uint8)).crop((KERNEL, 0, image.width, image.height))


def _enlarged(image: Image.Image, times: int) -> Image.Image:
    small = image.resize((image.width // times, image.height // times), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _blurred(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    **{f"Gaussian blur of {one:g} pixels": functools.partial(_blurred, radius=one) for one in (0.5, 1.0, 2.0, 4.0)},
    f"shaken by {KERNEL} pixels": _shaken,
    **{f"enlarged {times} times": functools.partial(_enlarged, times=times) for times in (2, 4)},
}


SPOILT: dict[str, Callable[[Image.Image], Image.Image]] = {
    "Gaussian blur of 4 pixels": functools.partial(_blurred, radius=4.0),
    "enlarged 4 times": functools.partial(_enlarged, times=4),
    "a quarter of the light": lambda image: ImageEnhance.Brightness(image).enhance(0.25),
}


def _sharpness(profile: Profile, count: int, seed: int) -> Figures:
    pictures = list(_pictures().values())
    sharp = np.array([one["sharpness"] for one in _run(profile, "sharpness", pictures)])
    figures: Figures = {"photographs": len(sharp)}
    for share in (1, 5, 50):
        figures[f"photographs, the value that {share} % lie below"] = float(np.percentile(sharp, share))
    for name, change in CHANGES.items():
        found = _run(profile, "sharpness", [change(image) for image in pictures])
        blurred = np.array([one["sharpness"] for one in found])
        truth = np.r_[np.ones(len(sharp)), np.zeros(len(blurred))]
        figures[f"{name}: AUC"] = float(roc_auc_score(truth, np.r_[sharp, blurred]))
        figures[f"{name}: found by the value that 5 % of the photographs lie below"] = float(
            np.mean(blurred < np.percentile(sharp, 5))
        )
        figures[f"{name}: found by 20"] = float(np.mean(blurred < 20))
    figures["photographs left out by 20"] = float(np.mean(sharp < 20))
    return figures


def _faces(profile: Profile, count: int, seed: int) -> Figures:
    pictures = {name: image for name, image in _pictures().items() if name not in UNSURE}
    found = dict(zip(pictures, (one["faces"] for one in _run(profile, "faces", list(pictures.values()))), strict=True))
    seen = {name: FACES.get(name, 0) for name in pictures}
    figures: Figures = {
        "photographs with faces": sum(number > 0 for number in seen.values()),
        "photographs with faces, at least one found": sum(found[name] > 0 for name, number in seen.items() if number),
        "faces in photographs": sum(seen.values()),
        "faces in photographs, found": sum(min(found[name], number) for name, number in seen.items()),
        "photographs without faces": sum(number == 0 for number in seen.values()),
        "photographs without faces, with false ones": sum(
            found[name] > 0 for name, number in seen.items() if not number
        ),
    }
    grounds = [pictures[name] for name in GROUNDS]
    patches = _patches()
    for side in SIDES:
        scenes, boxes = zip(*_pasted(patches, grounds, side, np.random.default_rng(seed)), strict=True)
        hits = [_hit(one, box) for one, box in zip(_run(profile, "faces", scenes), boxes, strict=True)]
        figures[f"LFW at {side} pixels: faces found of 100"] = sum(hits[:100])
        figures[f"LFW at {side} pixels: other patches taken for faces of 100"] = sum(hits[100:])
    return figures


def _patches() -> list[Image.Image]:
    """100 faces and 100 other patches of LFW. Raises ImportError without scikit-image."""
    import skimage

    pixels = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")
    return [Image.fromarray(np.rint(255 * one).astype(np.uint8)).convert("RGB") for one in pixels]


def _pasted(
    patches: Sequence[Image.Image], grounds: Sequence[Image.Image], side: int, random: np.random.Generator
) -> Iterator[tuple[Image.Image, tuple[float, ...]]]:
    """Each patch in a photograph, and its box as shares of the sides."""
    for number, patch in enumerate(patches):
        scene = grounds[number % len(grounds)].copy()
        left, top = (int(random.integers(0, length - side)) for length in scene.size)
        scene.paste(patch.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        corners = (left, top, left + side, top + side)
        yield scene, tuple(float(one) for one in np.array(corners) / np.array([*scene.size, *scene.size]))


def _hit(result: Any, box: tuple[float, ...]) -> bool:
    """Whether the middle of one of the found faces lies in a box."""
    sides = np.asarray(result["face_boxes"]).reshape(-1, 4)
    across, down = (sides[:, 0] + sides[:, 2]) / 2, (sides[:, 1] + sides[:, 3]) / 2
    return bool(((across > box[0]) & (across < box[2]) & (down > box[1]) & (down < box[3])).any())


def _nsfw(profile: Profile, count: int, seed: int) -> Figures:
    figures: Figures = {}
    groups = {
        "photographs": list(_pictures().values()),
        "LFW's faces": [one.resize((224, 224)) for one in _patches()[:100]],
    }
    for group, images in groups.items():
        found = np.array([one["nsfw"] for one in _run(profile, "nsfw", images)])
        figures |= {
            f"{group}": len(found),
            f"{group}, most": float(found.max()),
            f"{group}, median": float(np.median(found)),
        }
        figures |= {f"{group} above {bound}": float((found > bound).sum()) for bound in (0.2, 0.5, 0.8)}
    return figures


def _aesthetic(profile: Profile, count: int, seed: int) -> Figures:
    pictures = list(_pictures().values())
    scores = _liked(profile, pictures)
    figures: Figures = {
        f"photographs, the value that {share} % lie below": float(np.percentile(scores, share)) for share in (5, 50, 95)
    }
    for name, change in SPOILT.items():
        spoilt = _liked(profile, [change(image) for image in pictures])
        figures[f"{name}: photographs that score higher than their spoilt copy"] = float(np.mean(scores > spoilt))
        figures[f"{name}: mean difference"] = float(np.mean(scores - spoilt))
    return figures


def _liked(profile: Profile, images: Sequence[Image.Image]) -> np.typing.NDArray[np.float64]:
    vectors = [one["embedding"] for one in _run(profile, "embedding", images)]
    return np.array([one["aesthetic"] for one in _run(profile, "aesthetic", vectors)])


def _personal(profile: Profile, count: int, seed: int) -> Figures:
    pictures = _pictures()
    drawn = signs([pictures[name] for name in GROUNDS], count, seed)
    read = [[line.text for line in lines] for lines in _run(profile, "ocr", [one.image for one in drawn])]
    figures: Figures = {}
    for kind in dict.fromkeys(one.kind for one in drawn):
        some = [(one, lines) for one, lines in zip(drawn, read, strict=True) if one.kind == kind]
        name = f"signs with {kind}" if kind else "signs without"
        figures[name] = len(some)
        figures[f"{name}, found"] = sum(any(map(personal_data, lines)) for _, lines in some)
        figures[f"{name}, read without a fault"] = sum(_bare(one.text) in map(_bare, lines) for one, lines in some)
    figures["photographs"] = len(pictures)
    others = _run(profile, "ocr", list(pictures.values()))
    figures["photographs, found"] = sum(any(personal_data(line.text) for line in lines) for lines in others)
    return figures


def _bare(text: str) -> str:
    return "".join(text.split()).casefold()


def _watermarks(profile: Profile, count: int, seed: int) -> Figures:
    pictures = [image for name, image in _pictures().items() if name in GROUNDS]
    figures: Figures = {}
    for alpha in (0.25, 0.5, 0.8):
        marked = [watermarked(image, name, alpha) for image in pictures for name in AGENCIES]
        read = _run(profile, "ocr", marked)
        names = [name for _ in pictures for name in AGENCIES]
        kept = [[line.text for line in lines if line.score >= profile.evidence.text] for lines in read]
        told = [any(_bare(name) in _bare(text) for text in texts) for name, texts in zip(names, kept, strict=True)]
        figures |= {f"watermarks of {alpha:.0%}": len(told), f"watermarks of {alpha:.0%}, read": sum(told)}
    return figures


MEASURES: dict[str, Callable[[Profile, int, int], Figures]] = {
    "sharpness": _sharpness,
    "faces": _faces,
    "nsfw": _nsfw,
    "aesthetic": _aesthetic,
    "personal": _personal,
    "watermarks": _watermarks,
}

"""Workers that describe drawn scenes from their truth: real evidence in the studio, without models.

An image whose alt text is "scene SEED" is `samples.scenes.make_scene(SEED)`; others get a caption alone. An image whose
alt text is "broken" becomes a failed row.
"""

from __future__ import annotations

import io
import re
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from models.items import ComposeRequest
from models.observed import tell
from samples.scenes import Scene, SceneOptions, make_scene
from strata.core.claims import CheckedSentence, Claim, Variant, Verification
from strata.core.layers import Caption, Description, Mask, ObjectMask, Region, Sentence, TextLine
from strata.core.parameters import TextSettings
from strata.core.profiles import Profile
from strata.core.records import Record
from strata.jobs.jobs import Jobs
from tests.fakes import FAKE_PROFILE, FakeLlm, FakeMachine, FakeVision

OPTIONS = SceneOptions(min_objects=3, max_objects=5)
BROKEN = "broken"
CUT = "A golden crown floats above everything."
_SEED = re.compile(r"scene (\d+)")


def scene_bytes(seed: int) -> bytes:
    """The scene of a seed as PNG."""
    file = io.BytesIO()
    make_scene(seed, OPTIONS).image.save(file, "PNG")
    return file.getvalue()


def write_scenes(path: Path, seeds: Sequence[int], broken: int = 0) -> str:
    """A shard of scenes; the first `broken` of them fail. Returns its path."""
    with tarfile.open(path, "w") as tar:
        for index, seed in enumerate(seeds):
            text = BROKEN if index < broken else f"scene {seed}"
            for suffix, content in (("png", scene_bytes(seed)), ("txt", text.encode())):
                member = tarfile.TarInfo(f"{seed:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(path)


class SceneVision(FakeVision):
    """The layers of scenes. It tells captions at once, and the other layers when `go_on` is set."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        """Records with the entries of their scenes."""
        records = [_described(record, found) for (record, _), found in zip(batch, super().run(batch), strict=True)]
        tell(lambda: [one.model_copy(update=dict.fromkeys(("regions", "objects", "text"))) for one in records])
        assert self.go_on.wait(120)
        tell(lambda: records)
        return records


def _described(record: Record, found: Record) -> Record:
    if record.alt_text == BROKEN:
        return record.failed("captioner", "empty_answer", "the model gave no text for the image")
    return _with_layers(record) if _scene(record) else found


class SceneLlm(FakeLlm):
    """The texts of scenes: a sentence a thing, and one that the verifier has cut."""

    def run(self, batch: Sequence[ComposeRequest], texts: TextSettings | None = None) -> list[Record]:
        """Records with a description, what was found of it, and variants."""
        return [
            _with_texts(request.record) if _scene(request.record) else found
            for request, found in zip(batch, super().run(batch, texts), strict=True)
        ]


class SceneMachine(FakeMachine):
    """Workers that describe scenes."""

    def __init__(self, jobs: Jobs) -> None:
        super().__init__(jobs)
        self.scenes = SceneVision(FAKE_PROFILE)
        self.vision, self.llm = self.scenes, SceneLlm(FAKE_PROFILE)


def _scene(record: Record) -> Scene | None:
    found = _SEED.fullmatch(record.alt_text or "")
    return make_scene(int(found[1]), OPTIONS) if found else None


def _mask(mask: np.typing.NDArray[np.bool_]) -> Mask:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return Mask(size=encoded["size"], counts=encoded["counts"].decode())


def _with_layers(record: Record) -> Record:
    scene = _scene(record)
    assert scene is not None
    objects = [
        ObjectMask(
            box=thing.box,
            mask=_mask(thing.mask),
            area=int(thing.mask.sum()),
            phrase=thing.phrase,
            score=0.9,
            match=0.97,
        )
        for thing in scene.objects
    ]
    regions = [Region(box=thing.box, phrase=thing.phrase, score=0.8, match=0.95) for thing in scene.objects[:2]]
    width, height = scene.image.size
    dropped = Region(box=(0, 0, width / 2, height / 2), phrase="a golden crown", score=0.3, match=0.02, kept=False)
    regions.append(dropped.model_copy(update={"reason": "low_match"}))
    return record.model_copy(
        update={
            "caption": Caption(text=scene.caption, match=0.9),
            "regions": regions,
            "objects": objects,
            "text": [TextLine(box=sign.box, text=sign.text, score=0.99) for sign in scene.signs],
        }
    )


def _with_texts(record: Record) -> Record:
    things = [(f"objects/{index}", thing.phrase or "") for index, thing in enumerate(record.objects or [])]
    sentences = [Sentence(text=f"There is {phrase}.", evidence=["caption", name]) for name, phrase in things]
    sentences += [
        Sentence(text=f'A sign says "{line.text}".', evidence=[f"text/{index}"])
        for index, line in enumerate(record.text or [])
    ]
    claim = Claim(
        kind="thing", text="a golden crown", supported=False, reason="unsupported_object", evidence=["regions/2"]
    )
    checked = [CheckedSentence(text=one.text, kept=one.text) for one in sentences]
    checked.insert(1, CheckedSentence(text=CUT, kept=None, reason="unsupported_object", claims=[claim]))
    text = " ".join(one.text for one in sentences)
    short = sentences[0]
    return record.model_copy(
        update={
            "description": Description(text=text, sentences=sentences),
            "verification": Verification(text=" ".join(one.text for one in checked), sentences=checked),
            "variants": [Variant(name="short", text=short.text, sentences=[short])],
        }
    )

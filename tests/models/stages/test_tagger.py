"""The tagger with the demo's weights and with tiny ones, and the layer `tags` in every place that shows layers."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from rich.console import Console

from models.building import build_stage
from models.crops import crop_box
from models.evidence.support import support
from models.pipeline import LlmPipeline, VisionPipeline
from models.prompts import full_notes
from models.stages import tagger
from models.stages.tagger import words_of
from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from strata.cli.rendering import records as render
from strata.core.layers import LAYERS, Tag
from strata.core.profiles import GROUPS, InvalidProfile, StageSettings, load_profile
from strata.core.records import Record
from strata.data.exports import Request, export
from strata.data.exports.formats import Form
from strata.queue.queue import Queue
from strata.snapshots.selection import Selection
from strata.snapshots.selection.axes import Axis
from strata.snapshots.snapshots import Snapshots
from strata.store.parts import PartsOf
from tests.checkout import CHECKOUT
from tests.fakes import wait_for_end, write_shard
from tests.models.stages.test_matcher import _open_clip
from tests.service import running_service

SCENES = [make_scene(HELD_OUT_SEED + seed, SceneOptions(min_objects=1)) for seed in range(24)]
CROPS = [(thing.name, crop_box(scene.image, thing.box)) for scene in SCENES for thing in scene.objects]
NAMES = sorted({name for name, _ in CROPS})
PROFILE = """
chunk_size = 4
micro_batch = 2
[stages.tagger]
backend = "open_clip"
model = "bundled:matcher"
revision = "e1cac4de3c45a878b11b333cc674a3252fa8fdcf29edb52fb6f3ce5c6e01935e"
[stages.tagger.parameters]
"""


def loaded(model: str = "bundled:matcher", batch_size: int = 16, **parameters: Any) -> Any:
    stage = build_stage(
        "tagger",
        StageSettings(backend="open_clip", model=model, revision="", batch_size=batch_size, parameters=parameters),
    )
    stage.load()
    return stage


def test_the_best_tag_of_a_drawing_is_its_name() -> None:
    tags = loaded(words=NAMES, template="a {}", max_tags=1, threshold=0.0).run([image for _, image in CROPS])
    right = sum(found[0].word == name for (name, _), found in zip(CROPS, tags, strict=True))
    assert right / len(CROPS) > 0.9, (right, len(CROPS))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_only_words_of_the_list_above_the_threshold_the_best_first(batch_size: int) -> None:
    stage = loaded(batch_size=batch_size, words=NAMES, template="a {}", max_tags=3, threshold=0.2)
    images = [image for _, image in CROPS]
    tags = stage.run(images)
    assert {tag.word for found in tags for tag in found} <= set(NAMES)
    assert {len(found) for found in tags} >= {1} and max(map(len, tags)) <= 3
    for found in tags:
        scores = [tag.score for tag in found]
        assert scores == sorted(scores, reverse=True) and all(score >= 0.2 for score in scores)
    alone = [stage.run([image])[0] for image in images[:5]]
    assert [[tag.word for tag in found] for found in alone] == [[tag.word for tag in found] for found in tags[:5]]


@pytest.mark.parametrize("bias", [-1.5, None])
def test_scores_are_those_of_the_model_s_kind(tmp_path: Path, bias: float | None) -> None:
    _open_clip(tmp_path, bias=bias)
    words, image = ["dog", "car", "tree"], Image.new("RGB", (32, 32), "red")
    stage = loaded(f"local:{tmp_path}", words=words, template="a {}", threshold=0.0)
    encoders = stage._encoders
    pixels = image_transform_v2(PreprocessCfg(size=32), is_train=False)(image)[None]
    with torch.no_grad():
        logits = encoders.model.get_logits(pixels, encoders._tokenizer([f"a {word}" for word in words]))[0][0]
    wanted = logits.softmax(dim=0) if bias is None else logits.sigmoid()
    (tags,) = stage.run([image])
    assert {tag.word: tag.score for tag in tags} == pytest.approx(
        dict(zip(words, wanted.tolist(), strict=True)), abs=1e-5
    )


def test_the_list_that_ships() -> None:
    words = words_of("coco-80")
    assert len(set(words)) == 80 and (words[0], words[-1]) == ("person", "toothbrush")
    stage = loaded()
    assert stage._texts.shape[0] == 80 and torch.allclose(stage._texts.norm(dim=1), torch.ones(80), atol=1e-5)


def test_a_list_that_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tagger.WORD_LISTS, "coco-80", "0" * 64)
    with pytest.raises(ValueError, match="the word list 'coco-80' has changed"):
        loaded()


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("words = []", "at least 1 item"),
        ('words = ["car", "car"]', "stands there twice"),
        ('words = ["car", " "]', "is empty"),
        ('template = "a photo"', "must stand in the template once"),
        ('word_list = "wordnet"', "'coco-80'"),
        ("treshold = 0.5", "did you mean 'threshold'"),
    ],
)
def test_a_profile_with_a_wrong_tagger_is_refused(tmp_path: Path, parameters: str, reason: str) -> None:
    (tmp_path / "mine.toml").write_text(PROFILE + parameters)
    with pytest.raises(InvalidProfile, match=reason):
        load_profile("mine", tmp_path)


def test_a_tagger_changes_no_fingerprint_but_of_profiles_that_have_one(tmp_path: Path) -> None:
    demo = CHECKOUT / "models" / "profiles" / "demo.toml"
    (tmp_path / "demo.toml").write_text(demo.read_text())
    (tmp_path / "tagged.toml").write_text(demo.read_text() + PROFILE.partition("micro_batch = 2\n")[2])
    plain, tagged = (load_profile(name, tmp_path) for name in ("demo", "tagged"))
    same = [plain.fingerprint(group) == tagged.fingerprint(group) for group in GROUPS]
    assert same == [True, False, False]


def test_tags_from_the_image_to_the_export(queue: Queue, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "fake.toml").write_text(PROFILE + f'words = {json.dumps(NAMES)}\ntemplate = "a {{}}"\nthreshold = 0.5')
    profile = load_profile("fake", folder)
    with running_service(queue, tmp_path, profile=profile, profiles_dir=folder) as service:
        assert service.machine is not None
        vision, llm = VisionPipeline(profile), LlmPipeline(profile)
        vision.load()
        service.machine.vision, service.machine.llm = vision, llm  # type: ignore[assignment]
        # one image: no other layer, and no description
        name, image = CROPS[0]
        answer = service.caption(jpeg_of(image))
        record = Record.model_validate(answer.json())
        assert record.tags and record.tags[0].word == name and record.status == "succeeded"
        assert [record.caption, record.regions, record.objects, record.text, record.description] == [None] * 5
        assert service.client.get(answer.headers["Content-Location"] + "/overlay.png").status_code == 200
        # a job: rows, part and page
        shard = write_shard(tmp_path / "shards" / "a.tar", [jpeg_of(image) for _, image in CROPS[:6]])
        job = service.submit(shard).json()["id"]
        wait_for_end(service.jobs, job)
        rows = [json.loads(line) for line in service.client.get(f"/v1/jobs/{job}/results").text.splitlines()]
        assert [row["status"] for row in rows] == ["succeeded"] * 6
        page = service.client.get("/").text
        layers = json.loads(page.partition('<script id="layers" type="application/json">')[2].partition("</script>")[0])
        (tags,) = [layer for layer in layers if layer["name"] == "tags"]
        assert (tags["title"], tags["words"]) == ("tags", "word")
        store = service.jobs.store
    parts = PartsOf(store).sources([job])
    assert "tags" in pq.read_schema(store.path(parts[0].path)).names
    # people are told
    console = Console(file=io.StringIO(), width=120)
    console.print(render.layers_tree(record))
    assert isinstance(console.file, io.StringIO) and f"tags  {len(record.tags)} kept" in console.file.getvalue()
    assert f"0 {name}  score 0." in console.file.getvalue() or f"0 {name}  score 1." in console.file.getvalue()
    # rows are filtered and balanced by their tags
    tagged = [row for row in rows if row["tags"]]
    best = tagged[0]["tags"][0]["word"]
    snapshots = Snapshots(store)
    chosen = snapshots.create("some", parts, Selection(where="tags >= 1"))
    assert chosen.rows().num_rows == len(tagged)
    balanced = Selection(method="balanced", where=f"tag == {best!r}", axes=(Axis.parse("tag:16"), Axis.parse("tags:1")))
    same = [row for row in tagged if max(row["tags"], key=lambda tag: tag["score"])["word"] == best]
    assert snapshots.create("one", parts, balanced).rows().num_rows == len(same)
    # and exported
    texts = [", ".join(tag["word"] for tag in row["tags"]) for row in tagged]
    assert export_texts("llava", store, chosen, tmp_path) == texts
    assert export_texts("webdataset", store, chosen, tmp_path) == texts


def export_texts(form: Form, store: Any, snapshot: Any, folder: Path) -> list[str]:
    """The texts of an export of the layer tags."""
    out = folder / form
    export(store, snapshot, Request(form, LAYERS["tags"]), out)
    if form == "llava":
        return [entry["conversations"][1]["value"] for entry in json.loads((out / "train.json").read_text())]
    with tarfile.open(out / "00000.tar") as tar:
        notes = [json.load(tar.extractfile(one)) for one in tar if one.name.endswith(".json")]  # type: ignore[arg-type]
    return [note["text"] for note in notes]


def jpeg_of(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def test_the_composer_is_told_and_sentences_rest_on_tags() -> None:
    tags = [Tag(word="dog", score=0.9), Tag(word="cat", score=0.2, kept=False, reason="low_score")]
    record = Record.model_validate(
        {"key": "a", "image": {"uri": "u", "size": 1}, "tags": [tag.model_dump() for tag in tags]}
    )
    assert full_notes(record, 10) == "Tags of the whole picture:\ndog"
    assert support("A dog sleeps beside a cat.", record) == ["tags/0"]

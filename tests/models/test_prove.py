"""`strata models prove`: good models pass, and each kind of broken one fails at the check that is meant for it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from bench.fakes.scripted_server import Reply, good, is_plain, scripted
from models.base import Stage
from models.building import build_stage
from models.items import CaptionRequest, ComposeRequest, Detection, Pair, ReadLine, Segment
from models.prompts import FOLDER as PROMPTS
from models.prove.pictures import Picture, load_pictures, worlds_of
from models.prove.proving import Options, prove, prove_stage
from models.prove.published import missing_pictures, published_checks
from models.prove.report import ASKED, tables
from models.weights.cache import BUNDLED
from models.weights.hashes import sha256_of
from models.weights.inventory import PROFILES
from models.writers import WriterStage
from strata.cli import exits
from strata.cli.main import main
from strata.core import FEATURES, STAGES_OF, Check, Profile, Proof, StageSettings, load_profile
from strata.store import Store, proof_of
from tests.checkout import CHECKOUT
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make
from tests.models.tiny.tiny_profiles import make_checkpoints, write_copy

MODERN = load_profile("modern", PROFILES)
SETTINGS = StageSettings(backend="stand-in", model="local:none", revision="")


def failed(checks: Sequence[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `strata models prove` in this process."""
    out, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told), pytest.raises(SystemExit) as caught:
        main(["models", "prove", *arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code, out.getvalue(), told.getvalue()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Proof, str, Store]:
    """What the command gives for the profile `demo`, and the store that it wrote to."""
    torch.set_num_threads(1)  # as in the command's own process; another module may have imported torch before
    store = tmp_path_factory.mktemp("proof") / "store"
    code, out, told = run("demo", "--seconds", "0", "--store", str(store), "--json")
    return code, Proof.model_validate_json(out), told, Store(str(store))


def test_the_demo_gives_what_it_must(demo: tuple[int, Proof, str, Store]) -> None:
    code, proof, told, _ = demo
    assert (code, proof.failed, proof.passed) == (0, [], True)
    profile = load_profile("demo", PROFILES)
    assert proof.fingerprints["llm"] == profile.fingerprint("llm")
    assert set(proof.stages) == set(profile.stages)
    described = {name: one for name, one in proof.stages.items() if name not in STAGES_OF[FEATURES]}
    assert all(figures.images_per_second and figures.images_per_second > 0 for figures in described.values())
    assert proof.images_per_second is not None
    assert proof.days[427_000] == pytest.approx(427_000 / proof.images_per_second / 86_400, rel=0.01, abs=0.01)
    assert proof.versions["torch"] and proof.machine["cores"] and float(proof.machine["load"]) >= 0 and proof.device
    assert "detector: loading bundled:detector" in told


@pytest.mark.parametrize(
    ("machine", "told", "hint"),
    [
        ({"load": "20.3", "cores": "2"}, "load 20.3 on 2 cores: other programs ran beside it", True),
        ({"load": "3.0", "cores": "2"}, "load 3.0 on 2 cores", False),
        ({"load": "0.9", "cores": "1"}, "load 0.9 on 1 core", False),
        ({"cores": "2"}, "images/s with one process", False),  # a proof of an earlier version
    ],
)
def test_the_load_of_the_machine_stands_beside_the_rate(
    demo: tuple[int, Proof, str, Store], machine: dict[str, str], told: str, hint: bool
) -> None:
    console = Console(width=200)
    with console.capture() as shown:
        console.print(tables(demo[1].model_copy(update={"machine": machine})))
    text = shown.get()
    assert told in text and ("an idle machine is faster" in text) == hint and ("load " in text) == ("load" in machine)


def test_everyday_gives_what_it_must() -> None:
    torch.set_num_threads(1)
    profile = load_profile("everyday", PROFILES)
    proof = prove(profile, Options(seconds=0))
    assert (proof.failed, proof.passed) == ([], True)
    assert {check.stage for check in proof.checks} == {*profile.stages, "pipeline"}


def test_the_proof_is_kept_for_its_fingerprint(demo: tuple[int, Proof, str, Store]) -> None:
    _, proof, told, store = demo
    assert proof_of(store, proof.fingerprints["llm"]) == proof
    assert f"the proof is kept in {store.root}/proofs/" in told


def test_every_check_is_explained(demo: tuple[int, Proof, str, Store]) -> None:
    _, proof, _, _ = demo
    assert {check.name for check in proof.checks} <= ASKED.keys()
    page = (CHECKOUT / "docs" / "how-to" / "real-models.md").read_text(encoding="utf-8")
    assert [name for name in ASKED if f"`{name}`" not in page] == []


def test_each_stage_is_asked_about_what_it_knows() -> None:
    demo = load_profile("demo", PROFILES)
    assert worlds_of(demo) == {
        **dict.fromkeys(("captioner", "detector", "segmenter", "matcher", "embedding", "text_embedding"), "drawings"),
        **dict.fromkeys(("ocr", "composer", "verifier", "hash", "sharpness", "faces"), "photographs"),
    }
    assert set(worlds_of(MODERN).values()) == {"photographs"}
    assert worlds_of(MODERN, "drawings")["captioner"] == "drawings"


def test_the_pictures_are_whole_and_small() -> None:
    for world in ("photographs", "drawings"):
        for picture in load_pictures(world):
            assert picture.caption and picture.absent
            for thing in picture.things:
                assert thing.right and thing.wrong
                assert all(mask.shape == picture.image.size[::-1] and mask.any() for mask in thing.masks)
                assert thing.box[2] <= picture.image.width and thing.box[3] <= picture.image.height
    folder = CHECKOUT / "models" / "prove" / "pictures"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 400_000
    photographs = [thing for picture in load_pictures("photographs") for thing in picture.things]
    assert [sum(len(getattr(thing, side)) for thing in photographs) for side in ("right", "wrong")] == [10, 10]


class StandIn(Stage[Any, Any]):
    """A stage that answers by a function of the item, or of the batch."""

    answer: Callable[[Sequence[Any]], list[Any]]

    def load(self) -> None:
        """Do nothing."""

    def compute(self, batch: Sequence[Any]) -> list[Any]:
        return self.answer(batch)


class StandInWriter(WriterStage[Any], StandIn):
    """The same for a stage that writes."""


def checks_of(name: str, answer: Callable[[Any], Any], batched: bool = False) -> list[Check]:
    """The checks of a stage that gives these answers, on photographs. batched: the function takes a batch."""
    kind = StandInWriter if name in ("captioner", "composer") else StandIn
    stage = type("Named", (kind,), {"name": name})(SETTINGS)
    stage.answer = answer if batched else lambda batch: [answer(item) for item in batch]
    return prove_stage(name, stage, MODERN, "photographs")


@pytest.fixture(scope="module")
def photographs() -> list[Picture]:
    return load_pictures("photographs")


def shown(image: Image.Image, pictures: Sequence[Picture]) -> tuple[Picture, int]:
    """The photograph that an image shows, and how often."""
    for picture in pictures:
        if image.size == picture.image.size:
            return picture, 1
        if image.size == picture.doubled().image.size:
            return picture.doubled(), 2
    raise AssertionError(f"no photograph has the size {image.size}")


def test_a_detector(photographs: list[Picture]) -> None:
    def right(image: Image.Image) -> list[Detection]:
        return [Detection(thing.box, thing.phrase, 0.9) for thing in shown(image, photographs)[0].things]

    def once(image: Image.Image) -> list[Detection]:
        picture, times = shown(image, photographs)
        return right(image)[: len(picture.things) // times]

    def misplaced(image: Image.Image) -> list[Detection]:
        return [Detection((0.0, 0.0, 40.0, 40.0), one.phrase, 0.9) for one in right(image)]

    assert failed(checks_of("detector", right)) == []
    assert failed(checks_of("detector", once)) == ["repeats"]
    assert failed(checks_of("detector", misplaced)) == ["finds", "names", "repeats"]
    assert failed(checks_of("detector", lambda image: [*right(image), Detection((0, 0, 9, 9), "a dog", 0.9)])) == [
        "invents"
    ]
    assert failed(checks_of("detector", lambda image: [])) == ["finds", "names", "repeats"]


def test_features() -> None:
    """Values that cannot be those of the pictures: equal ones, noise, and none."""
    random = np.random.default_rng(0)
    same = {"embedding": np.full(4, 0.5), "text_embedding": np.full(4, 0.5), "sharpness": 7.0, "faces": 1, "nsfw": 0.9}

    def noise(item: Any) -> dict[str, Any]:
        vector = random.normal(size=64)
        return {"embedding": vector / np.linalg.norm(vector)}

    def fails(item: Any) -> dict[str, Any]:
        raise ValueError("no")

    assert failed(checks_of("embedding", lambda image: same)) == ["copies"]
    assert failed(checks_of("text_embedding", lambda text: same)) == ["copies"]
    assert failed(checks_of("embedding", noise)) == ["copies", "batch"]
    assert failed(checks_of("sharpness", lambda image: same)) == ["blurred"]
    assert failed(checks_of("faces", lambda image: same)) == ["counts"]
    assert failed(checks_of("nsfw", lambda image: same)) == ["safe", "published"]
    assert failed(checks_of("hash", lambda image: {"pdq": bytes(32)})) == ["copies"]
    assert failed(checks_of("embedding", fails)) == ["answers"]


def test_a_segmenter(photographs: list[Picture]) -> None:
    def right(image: Image.Image) -> list[Segment]:
        things = shown(image, photographs)[0].things
        return [Segment(mask, thing.box, 0.9) for thing in things for mask in thing.masks[1:]]

    def all_of_it(image: Image.Image) -> list[Segment]:
        return [Segment(np.ones(image.size[::-1], np.bool_), (0, 0, image.width, image.height), 0.9)]

    assert failed(checks_of("segmenter", right)) == []
    assert failed(checks_of("segmenter", all_of_it)) == ["masks"]
    assert failed(checks_of("segmenter", lambda image: [])) == ["masks"]


def test_an_ocr(photographs: list[Picture]) -> None:
    def right(image: Image.Image) -> list[ReadLine]:
        return [ReadLine(line.text, 0.95, line.box) for line in shown(image, photographs)[0].lines or ()]

    def misread(image: Image.Image) -> list[ReadLine]:
        return [ReadLine(line.text.replace("E", "F"), line.score, line.box) for line in right(image)]

    def unsure(image: Image.Image) -> list[ReadLine]:
        return [ReadLine(line.text, 0.3, line.box) for line in right(image)]

    assert failed(checks_of("ocr", right)) == []
    assert failed(checks_of("ocr", misread)) == ["reads", "invents"]
    assert failed(checks_of("ocr", unsure)) == ["reads"]
    assert failed(checks_of("ocr", lambda image: [*right(image), ReadLine("8 kg", 0.9, (0, 0, 300, 300))])) == [
        "invents"
    ]


def test_a_matcher(photographs: list[Picture]) -> None:
    true = {phrase for picture in photographs for thing in picture.things for phrase in thing.right}
    assert failed(checks_of("matcher", lambda pair: 0.6 if pair.phrase in true else 0.001)) == []
    # a constant, on either side of the threshold
    assert failed(checks_of("matcher", lambda pair: 0.6)) == ["prefers", "margin", "drops"]
    assert failed(checks_of("matcher", lambda pair: 0.001)) == ["prefers", "margin", "keeps"]
    # right in order, and not usable with the profile's threshold, or with hardly a margin
    assert failed(checks_of("matcher", lambda pair: 0.9 if pair.phrase in true else 0.5)) == ["drops"]
    assert failed(checks_of("matcher", lambda pair: 0.011 if pair.phrase in true else 0.009)) == ["margin"]


def test_a_matcher_decides_where_the_profile_weighs_names() -> None:
    """A constant on either side of what is missing when captions and an undecided detector give the name too."""
    for constant, fails in ((0.9, "drops"), (0.5, "keeps")):
        stage = type("Named", (StandIn,), {"name": "matcher"})(SETTINGS)
        stage.answer = lambda batch, value=constant: [value for _ in batch]
        checks = prove_stage("matcher", stage, load_profile("demo", PROFILES), "drawings")
        assert failed(checks) == ["prefers", "margin", fails]


def test_a_captioner(photographs: list[Picture]) -> None:
    def right(request: CaptionRequest) -> str:
        if request.kind == "scene":
            return shown(request.image, photographs)[0].caption
        crops = {thing.crop_of(one.image).size: thing.phrase for one in photographs for thing in one.things}
        return crops[request.image.size]

    assert failed(checks_of("captioner", right)) == []
    assert failed(checks_of("captioner", lambda request: "An owl on a grey wall.")) == ["names", "crops"]
    beside = checks_of("captioner", lambda request: f"{right(request).removesuffix('.')} beside a train.")
    assert failed(beside) == ["invents"]
    crops = checks_of("captioner", lambda request: right(request) if request.kind == "scene" else "a white wall")
    assert failed(crops) == ["crops"]
    # what no guard lets through is no answer
    assert failed(checks_of("captioner", lambda request: "I'm sorry, I can't help with that."))[0] == "answers"


def test_a_composer() -> None:
    def right(request: ComposeRequest) -> str:
        record = request.record
        lines = [f'The words "{line.text}" can be read.' for line in record.text or ()]
        return " ".join([*(f"There is {region.phrase}." for region in record.regions or ()), *lines])

    assert failed(checks_of("composer", right)) == []
    assert failed(checks_of("composer", lambda request: "There is a wall in the picture.")) == ["names", "quotes"]
    assert failed(checks_of("composer", lambda request: f"{right(request)} A train passes by.")) == ["invents"]


def test_a_batch_that_differs(photographs: list[Picture]) -> None:
    """Right answers, in another order if there are several: as a wrong padding or a lost index gives them."""

    def turned(batch: Sequence[Pair]) -> list[float]:
        scores = [random.Random(f"{pair.phrase}{pair.crop.size}").random() for pair in batch]
        return [*scores[1:], scores[0]]

    def turned_texts(batch: Sequence[ComposeRequest]) -> list[str]:
        texts = [f"There is something called {request.record.key} in the picture." for request in batch]
        return [*texts[1:], texts[0]]

    assert "batch" in failed(checks_of("matcher", turned, batched=True))
    (check,) = (one for one in checks_of("composer", turned_texts, batched=True) if one.name == "batch")
    assert not check.passed and "for the batch" in check.detail and "alone" in check.detail


def test_a_stage_that_breaks_is_a_failed_check() -> None:
    def broken(batch: Sequence[Any]) -> list[Any]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    (check,) = checks_of("detector", broken, batched=True)
    assert (check.name, check.passed) == ("answers", False) and "device-side assert" in check.detail


def test_random_weights(tmp_path: Path) -> None:
    """Every stage fails where its weights matter. Without the OCR, whose models are real."""
    torch.set_num_threads(1)
    folder = write_copy("laptop", tmp_path / "profiles", make_checkpoints(tmp_path, ["laptop"]))
    copy = folder / "laptop.toml"
    text = re.sub(r"\[stages\.ocr.*?(?=\[stages\.matcher\])", "", copy.read_text(), flags=re.DOTALL)
    copy.write_text(re.sub("\nmax_masks = .*", "\nmax_masks = 2", re.sub("\ntext = .*", "", text)))
    proof = prove(load_profile("laptop", folder), Options(seconds=0))
    assert not proof.passed
    assert {"captioner names", "captioner crops", "captioner invents"} <= set(proof.failed)
    assert {"detector finds", "detector names", "detector repeats", "segmenter masks"} <= set(proof.failed)
    assert {"matcher prefers", "matcher margin", "pipeline layers tell"} <= set(proof.failed)
    assert "ocr" not in proof.stages


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    folder = make(tiny_models.florence, tmp_path / "florence")
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if "encoder.layers.0.fc1" not in name}, file)
    table = f'[stages.detector]\nbackend = "florence2"\nmodel = "local:{folder}"\nrevision = ""\n'
    (tmp_path / "partial.toml").write_text(table)
    proof = prove(load_profile("partial", tmp_path, pinned=False), Options(seconds=0))
    assert proof.failed == ["detector loads"] and "fc1" in proof.checks[0].detail
    assert proof.images_per_second is None and not proof.stages


def test_swapped_labels(tmp_path: Path) -> None:
    """The demo's own detector, whose labels stand for other things: it still finds all, and names nothing rightly."""
    folder = tmp_path / "detector"
    shutil.copytree(BUNDLED / "detector", folder)
    for name in ("strata.json", "strata-hashes.json"):
        (folder / name).unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    labels = list(config["id2label"].values())
    config["id2label"] = {str(i): labels[i - 1] for i in range(len(labels))}
    config["label2id"] = {label: i for i, label in enumerate([*labels[-1:], *labels[:-1]])}
    (folder / "config.json").write_text(json.dumps(config))
    profile = load_profile("demo", PROFILES)
    settings = profile.stages["detector"].model_copy(update={"model": f"local:{folder}", "revision": ""})
    stage = build_stage("detector", settings)
    stage.load()
    assert failed(prove_stage("detector", stage, profile, "drawings")) == ["names", "invents"]


def _region(phrase: str, box: Sequence[float], size: tuple[int, int]) -> str:
    bins = [min(999, int(side / whole * 1000)) for side, whole in zip(box, size * 2, strict=True)]
    return phrase + "".join(f"<loc_{bin}>" for bin in bins)


def test_the_ban_on_repetitions(photographs: list[Picture], tmp_path: Path) -> None:
    """Florence-2 with the setting of its published checkpoints cannot write "a tabby cat" a second time."""
    cat = photographs[0]
    twice = cat.doubled()
    answer = _region("a tabby cat", cat.things[0].box, cat.image.size)
    answer += "".join(_region("a tabby cat", thing.box, twice.image.size) for thing in twice.things)
    folder = make(lambda folder: tiny_models.florence(folder, answer), tmp_path)
    settings = StageSettings(backend="florence2", model=f"local:{folder}", revision="", batch_size=4)
    settings = settings.model_copy(update={"parameters": {"max_new_tokens": 100}})  # the tiny model has 128 positions
    stage: Any = build_stage("detector", settings)
    stage.load()
    assert failed(prove_stage("detector", stage, MODERN, "photographs", pictures=[cat])) == []
    stage._model.generation_config.no_repeat_ngram_size = 3
    assert failed(prove_stage("detector", stage, MODERN, "photographs", pictures=[cat])) == ["repeats"]


CHAT = """
[stages.captioner]
backend = "openai"
model = "server:{url}"
revision = "1"
parameters = {{ served_model = "m" }}

[stages.composer]
backend = "openai"
model = "server:{url}"
revision = "1"

[stages.composer.parameters]
served_model = "m"
prompt = "full"
prompt_sha256 = "{prompt}"
"""


def chat_profile(url: str, folder: Path) -> Profile:
    """A profile whose captioner and composer are behind a server."""
    (folder / "chat.toml").write_text(CHAT.format(url=url, prompt=sha256_of(PROMPTS / "full.toml")))
    return load_profile("chat", folder)


def seen(body: dict[str, Any], photographs: Sequence[Picture]) -> Reply:
    """What a good model tells of the picture in a request, or of the notes in it."""
    text = json.dumps(body)
    phrases = [thing.phrase for picture in photographs for thing in picture.things if thing.phrase in text]
    phrases = phrases or [picture.caption for picture in photographs if picture.caption in text]
    lines = [line.text for picture in photographs for line in picture.lines or () if line.text in text]
    told = [*(f"There is {phrase}." for phrase in phrases), *(f'The words "{line}" can be read.' for line in lines)]
    if found := re.search('data:image/[a-z]+;base64,([^"]+)', text):
        image = Image.open(io.BytesIO(base64.b64decode(found[1])))
        crops = {thing.crop_of(one.image).size: thing.phrase for one in photographs for thing in one.things}
        told = [crops[image.size]] if image.size in crops else [shown(image, photographs)[0].caption]
    return good(" ".join(told))


def test_models_behind_a_chat_server(photographs: list[Picture], tmp_path: Path) -> None:
    with scripted(lambda body: good("yes") if is_plain(body) else seen(body, photographs)) as server:
        proof = prove(chat_profile(server.url, tmp_path), Options(seconds=0))
    assert (proof.failed, proof.passed) == ([], True)
    assert "batch" not in {check.name for check in proof.checks}
    with scripted(lambda body: good("An owl sits on a grey wall.")) as server:
        proof = prove(chat_profile(server.url, tmp_path), Options(seconds=0))
    assert {"captioner names", "captioner crops", "composer names", "pipeline layers tell"} <= set(proof.failed)
    with scripted(lambda body: Reply("no such key", 401)) as server:
        proof = prove(chat_profile(server.url, tmp_path), Options(seconds=0))
    assert {"captioner answers", "composer answers", "pipeline vision"} <= set(proof.failed)
    (check,) = (one for one in proof.checks if (one.stage, one.name) == ("captioner", "answers"))
    assert "401" in check.detail and proof.images_per_second is None and not proof.days


def test_published_numbers(tmp_path: Path) -> None:
    model = "hub:Salesforce/blip2-itm-vit-g"
    stage = type("Named", (StandIn,), {"name": "matcher"})(SETTINGS)
    stage.answer = lambda batch: [0.97] * len(batch)
    assert missing_pictures([model], None) == missing_pictures([model], tmp_path) == ["demo.jpg"]
    assert published_checks("matcher", model, stage, tmp_path) == []
    Image.new("RGB", (300, 200)).save(tmp_path / "demo.jpg")
    assert missing_pictures([model], tmp_path) == []
    (check,) = published_checks("matcher", model, stage, tmp_path)
    assert check.passed and (check.value, check.least, check.most) == (0.97, 0.9562, 0.9962)
    for wrong in (0.93, 0.999):
        stage.answer = lambda batch, wrong=wrong: [wrong] * len(batch)
        assert failed(published_checks("matcher", model, stage, tmp_path)) == ["published"]
    (tmp_path / "demo.jpg").write_bytes(b"no picture")
    (check,) = published_checks("matcher", model, stage, tmp_path)
    assert not check.passed and "demo.jpg: UnidentifiedImageError" in check.detail


@pytest.mark.parametrize("maker", [tiny_models.sam, tiny_models.sam2])
def test_the_score_at_a_point(maker: Callable[..., None], tmp_path: Path) -> None:
    folder = make(maker, tmp_path)
    stage: Any = build_stage("segmenter", StageSettings(backend="sam", model=f"local:{folder}", revision=""))
    stage.load()
    scores = stage.scores_at(Image.new("RGB", (90, 60), "red"), ((45, 30), (50, 30)))
    assert len(scores) == 3 and all(0.9 <= score <= 1.1 for score in scores)


def test_what_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("demo", "--pictures", "paintings") == (
        exits.USAGE,
        "",
        "strata: --pictures paintings: there are photographs and drawings\n",
    )
    assert run("demo", "--images", str(tmp_path / "none"))[0] == exits.USAGE
    monkeypatch.setenv("STRATA_MODELS", str(tmp_path))
    code, out, told = run("modern")
    assert (code, out) == (exits.WEIGHTS_MISSING, "") and "strata models fetch modern" in told

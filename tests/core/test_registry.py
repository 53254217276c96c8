"""The registry: what is built in, what packages add, and what a broken package cannot break."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from bench.fakes.back_ends import BACK_ENDS
from models.base import Stage, StageNotLoaded
from models.building import build_stage, build_stages, stage_class
from models.chat.backends import OpenAIComposer
from models.items import Detection
from strata.core.parameters import BUILT_IN, BackEnd
from strata.core.profiles import ProfileError, StageSettings, load_profile, read_profile
from strata.core.registry import UnknownBackEnd, installed
from tests.checkout import CHECKOUT

PAGE = CHECKOUT / "docs" / "how-to" / "add-a-back-end.md"
BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
Install = Callable[[str, str, Mapping[str, str]], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution on the path, its name, its entry points and its modules; the registry looks anew."""

    def installer(name: str, entry_points: str, modules: Mapping[str, str]) -> None:
        folder = tmp_path / name
        information = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[strata.backends]\n{entry_points}\n")
        for path, text in modules.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        installed.cache_clear()

    yield installer
    installed.cache_clear()


def module(stage: str, name: str, code: str = "models.stages.ocr:RapidOcr", parameters: str = "Parameters") -> str:
    """A module that registers one back end."""
    return (
        "from strata.core.parameters import *\n"
        f"ONE = BackEnd({stage!r}, {name!r}, {parameters}, {code!r}, ('builtin',))\n"
    )


def settings(backend: str, **parameters: object) -> StageSettings:
    return StageSettings(backend=backend, model="builtin:x", revision="1", parameters=parameters)


@pytest.mark.parametrize("back_end", BUILT_IN, ids=lambda back_end: f"{back_end.stage}-{back_end.name}")
def test_every_built_in_back_end_has_its_code(back_end: BackEnd) -> None:
    assert issubclass(stage_class(back_end), Stage)
    # a second matcher is a matcher
    assert stage_class(back_end).name == back_end.stage.removeprefix("second_")


def test_the_registry_loads_neither_torch_nor_models() -> None:
    code = (
        "import sys; from strata.core.registry import installed; from strata.core.profiles import load_profile; "
        "from strata.core.settings import Settings; load_profile('demo', Settings().profiles_dir); "
        "print([name for name in ('torch', 'transformers', 'models', 'open_clip') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.strip() == "[]"


def test_the_page_s_package_works_as_it_stands(install: Install, tmp_path: Path) -> None:
    blocks = dict(BLOCK.findall(PAGE.read_text()))
    assert set(blocks) == {"pyproject.toml", "strata_qr/__init__.py", "strata_qr/detector.py", "profiles/codes.toml"}
    entry = re.search(r'^\[project.entry-points."strata.backends"\]\n(.+)$', blocks["pyproject.toml"], re.MULTILINE)
    assert entry is not None
    install("strata-qr", entry[1].replace('"', ""), {name: text for name, text in blocks.items() if "qr/" in name})
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "codes.toml").write_text(blocks["profiles/codes.toml"])

    # validation: as it stands, and with a misspelt parameter
    profile = load_profile("codes", profiles)
    (profiles / "wrong.toml").write_text(blocks["profiles/codes.toml"].replace("smallest", "smalest"))
    with pytest.raises(ProfileError, match=r"smalest: unknown key; did you mean 'smallest'\?"):
        load_profile("wrong", profiles)

    # a picture with one code of 33 by 33 modules of 4 pixels, and one without any
    code = cv2.QRCodeEncoder.create().encode("strata")
    large = np.kron(code, np.ones((4, 4), np.uint8))
    picture = Image.new("RGB", (300, 200), "white")
    picture.paste(Image.fromarray(large).convert("RGB"), (100, 40))
    stages = build_stages(profile, "vision")
    assert list(stages) == ["detector"]
    stages["detector"].load()
    (found, nothing) = stages["detector"].run([picture, Image.new("RGB", (300, 200), "white")])
    assert nothing == []
    assert isinstance(found, list)
    (detection,) = found
    assert isinstance(detection, Detection) and detection.phrase == "a QR code"
    # the encoder leaves a quiet zone of some modules around the code
    assert detection.box == pytest.approx((100, 40, 100 + large.shape[1], 40 + large.shape[0]), abs=4 * 5)


def test_a_plug_in_that_cannot_be_imported_is_named_and_harms_nobody(install: Install) -> None:
    install("strata-broken", "broken = broken_plug_in:ONE", {"broken_plug_in.py": "import no_such_module\n"})
    registry = installed()
    assert registry.back_end("ocr", "rapidocr").name == "rapidocr"
    (line,) = registry.refused
    assert line == (
        "strata-broken 1.0, entry point 'broken': broken_plug_in:ONE cannot be imported: "
        "ModuleNotFoundError: No module named 'no_such_module'"
    )
    with pytest.raises(UnknownBackEnd, match=r"ocr has no back end 'fast'; .*strata-broken 1\.0"):
        registry.back_end("ocr", "fast")


def test_a_plug_in_that_exits_at_import_stops_nothing(install: Install) -> None:
    install("strata-exits", "one = exiting_plug_in:ONE", {"exiting_plug_in.py": "import sys; sys.exit(0)\n"})
    (line,) = installed().refused
    assert line.startswith("strata-exits 1.0, entry point 'one'") and "SystemExit" in line


def test_a_validator_that_raises_is_a_fault_of_the_profile(install: Install, tmp_path: Path) -> None:
    text = (
        "from pydantic import field_validator\nfrom strata.core.parameters import *\n"
        "class Own(Parameters):\n    size: int = 1\n    @field_validator('size')\n    @classmethod\n"
        "    def check(cls, value):\n        raise KeyError('boom')\n"
        "ONE = BackEnd('ocr', 'raising', Own, 'os:path', ('builtin',))\n"
    )
    install("strata-raises", "one = raising_plug_in:ONE", {"raising_plug_in.py": text})
    (tmp_path / "own.toml").write_text(
        '[stages.ocr]\nbackend = "raising"\nmodel = "builtin:x"\nrevision = "1"\n[stages.ocr.parameters]\nsize = 2\n'
    )
    with pytest.raises(
        ProfileError, match=r"stages\.ocr\.parameters: back end 'raising' cannot check .* KeyError: 'boom'"
    ):
        load_profile("own", tmp_path)


def test_a_built_in_back_end_cannot_be_replaced(install: Install) -> None:
    before = installed().back_end("ocr", "rapidocr")
    install("strata-usurper", "one = usurper_plug_in:ONE", {"usurper_plug_in.py": module("ocr", "rapidocr", "os:path")})
    assert installed().back_end("ocr", "rapidocr") == before
    assert installed().refused == ["ocr back end 'rapidocr' is registered by Strata itself and by strata-usurper 1.0"]


def test_a_name_that_two_packages_claim_is_nobody_s(install: Install) -> None:
    install("strata-one", "one = clash_one:ONE", {"clash_one.py": module("ocr", "fast")})
    assert installed().back_end("ocr", "fast")
    install("strata-two", "two = clash_two:ONE", {"clash_two.py": module("ocr", "fast")})
    with pytest.raises(UnknownBackEnd) as caught:
        installed().back_end("ocr", "fast")
    assert "strata-one 1.0" in str(caught.value) and "strata-two 1.0" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ONE = 5", "expected a BackEnd or a list of them, not int"),
        (module("orc", "fast"), "there is no stage 'orc'; did you mean 'ocr'?"),
        (module("segmenter", "fast"), "the parameters of 'fast' must extend SegmenterParameters"),
        (module("ocr", "fast", parameters="dict"), "the parameters of 'fast' must extend Parameters"),
        (module("ocr", "fast", "nowhere"), "the code of 'fast' is 'nowhere', expected MODULE:CLASS"),
        (module("ocr", "fast\n"), "'fast\\n' is not a valid name: use letters, digits, _ and -"),
        (module("ocr", "fast").replace("'builtin'", "'web'"), "'fast' accepts unknown kinds of model: web"),
        (module("ocr", "fast").replace("('builtin',)", "None"), "the models of 'fast' must be a tuple of texts"),
        (module("ocr", "fast").replace("('builtin',)", "(1,)"), "the models of 'fast' must be a tuple of texts"),
    ],
)
def test_what_a_plug_in_registers_is_checked(text: str, told: str, install: Install) -> None:
    name = f"checked_{abs(hash(text))}"
    install("strata-checked", f"one = {name}:ONE", {f"{name}.py": text})
    assert installed().refused == [f"strata-checked 1.0, entry point 'one': {told}"]


def test_code_that_is_not_there_is_told(install: Install, tmp_path: Path) -> None:
    text = "\n".join(
        [module("ocr", "gone", "no_such_module:Ocr"), module("ocr", "none", "models.stages.ocr:Ocr").splitlines()[-1]]
    )
    text = (
        text.replace("ONE =", "A =", 1).replace("ONE =", "B =", 1)
        + "\nC = BackEnd('ocr', 'path', Parameters, 'os:path')\n"
    )
    install("strata-gone", "one = gone_plug_in:ALL", {"gone_plug_in.py": f"{text}ALL = [A, B, C]\n"})
    # a package that is missing on one machine is no fault of the profile
    for name, told, kind in (
        ("gone", "no_such_module", StageNotLoaded),
        ("none", "has no attribute 'Ocr'", ProfileError),
        ("path", "is not a subclass of models.base.Stage", ProfileError),
    ):
        with pytest.raises(kind, match=told):
            build_stage("ocr", settings(name))
    with pytest.raises(ProfileError, match="did you mean 'rapidocr'"):
        build_stage("ocr", settings("rapidorc"))


def test_stages_that_a_profile_leaves_out_are_not_built(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text('[stages.ocr]\nbackend = "rapidocr"\nmodel = "builtin:rapidocr"\nrevision = ""\n')
    profile = read_profile(path)
    assert list(build_stages(profile, "vision")) == ["ocr"]
    assert build_stages(profile, "llm") == {}


def test_the_fake_profile_s_stages_run() -> None:
    profile = load_profile("fake", CHECKOUT / "bench" / "profiles")
    assert installed().refused == []
    for group in ("vision", "llm"):
        for name, stage in build_stages(profile, group).items():
            assert stage.name == name
            stage.load()
    for back_end in BACK_ENDS:
        assert build_stage(back_end.stage, settings(back_end.name)).run([]) == []


def test_a_composer_gets_the_prompt_that_lies_beside_its_profile(tmp_path: Path) -> None:
    for folder in ("profiles", "prompts"):
        (tmp_path / folder).mkdir()
    prompt = 'system = "Tell it in verse."'
    (tmp_path / "prompts" / "verse.toml").write_text(prompt)
    (tmp_path / "profiles" / "mine.toml").write_text(
        '[stages.captioner]\nbackend = "fake"\nmodel = "builtin:fake"\nrevision = "1"\n'
        '[stages.composer]\nbackend = "openai"\nmodel = "server:http://127.0.0.1:9/v1"\nrevision = "1"\n'
        '[stages.composer.parameters]\nserved_model = "m"\nprompt = "verse"\n'
        f'prompt_sha256 = "{hashlib.sha256(prompt.encode()).hexdigest()}"\n'
    )
    composer = build_stages(load_profile("mine", tmp_path / "profiles"), "llm")["composer"]
    assert isinstance(composer, OpenAIComposer)
    assert composer._prompt.system == "Tell it in verse."

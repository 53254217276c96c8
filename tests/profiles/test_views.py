"""What `strata profiles` and `GET /v1/profiles` tell of a profile."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from models.weights.inventory import PROFILES
from models.weights.wheels import DOWNLOAD_BYTES
from strata.cli.rendering.profiles import table, tree
from strata.core import LAYERS, TextSettings
from strata.core.profiles import load_profile, profile_names
from strata.profiles.editing import new_profile
from strata.profiles.views import KNOWN, ProfileView, view_of, views


def test_stages_that_share_weights_are_one_model_in_download_and_memory() -> None:
    view = view_of(load_profile("laptop", PROFILES))
    florence = view.models[0]
    assert (florence.model, florence.stages) == ("hub:florence-community/Florence-2-base", ["captioner", "detector"])
    assert (florence.licence, florence.download_bytes) == ("MIT", 463_178_864)
    assert view.download_bytes == sum(one.download_bytes or 0 for one in view.models)
    # 232 + 39 + 8 + 375 million parameters of two bytes, or of four
    assert view.memory["vision"].gpu_bytes == 654 * 10**6 * 2
    assert view.memory["vision"].cpu_bytes == 654 * 10**6 * 4
    assert "index" not in view.memory


def test_modern_on_a_card_of_24_gigabytes(tmp_path: Path) -> None:
    """As docs/how-to/real-models.md advises: the captioner's model is the second opinion's, and is loaded once."""
    names = ("captioner", "second_matcher")
    values = {"model": "hub:Qwen/Qwen3-VL-4B-Instruct", "revision": "ebb281ec70b05090aa6165b016eac8ec08e71b17"}
    changes = {f"stages.{name}.{key}": value for name in names for key, value in values.items()}
    view = view_of(new_profile("modern-24gb", PROFILES / "modern.toml", tmp_path, changes).profile)
    assert view.models[0].stages == list(names)
    assert round(view.memory["vision"].gpu_bytes / 1e9, 1) == 13.2 and not view.memory["vision"].unknown
    alone = {key: value for key, value in changes.items() if "captioner" in key}
    both = view_of(new_profile("both", PROFILES / "modern.toml", tmp_path, alone).profile)
    assert round(both.memory["vision"].gpu_bytes / 1e9, 1) == 30.7


def test_the_size_of_a_model_that_is_not_known_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hub model that Strata does not know both figures are missing, of a local folder that of the memory."""
    changes = {"stages.captioner.model": "hub:me/mine", "stages.captioner.revision": "0" * 40}
    view = view_of(new_profile("mine", PROFILES / "modern.toml", tmp_path, changes).profile)
    known = view_of(load_profile("modern", PROFILES))
    assert view.memory["vision"].unknown == ["hub:me/mine"] and view.memory["llm"].unknown == []
    assert all(not memory.unknown for memory in known.memory.values())
    monkeypatch.setenv("COLUMNS", "250")
    console = Console(width=250)
    with console.capture() as shown:
        console.print(table([view, known]))
        console.print(tree(view))
    text = shown.get()
    assert text.count("at least 32.6 GB") == 2 and text.count("32.6 GB") == 3
    assert "modern with stages.captioner.model = hub:me/mine" in text and "licence not known, size not known" in text
    assert "vision at least 21.8 GB / 43.6 GB, llm 8.0 GB / 16.1 GB" in text
    assert "(weights alone, on a GPU / on a CPU; the size of hub:me/mine is not known)" in text
    only = ProfileView(name="only", models=[view.models[0]], memory={"vision": view.memory["vision"]})
    with console.capture() as shown:
        console.print(table([only.model_copy(update={"download_bytes": 0})]))
    assert "not known" in shown.get()


def test_the_texts_of_a_profile_are_told() -> None:
    modern = load_profile("modern", PROFILES)
    view = view_of(modern.with_texts(TextSettings(variants=["short", "tags"], prompt="Name the brand.\x1b[2J")))
    assert view.texts.variants == ["short", "tags"]
    console = Console(width=200)
    with console.capture() as shown:
        console.print(tree(view))
        console.print(tree(view_of(modern.with_texts(TextSettings(language="de")))))
        console.print(tree(view_of(modern)))
    lines = [line for line in shown.get().splitlines() if "texts" in line]
    assert [line.strip("├└─ ") for line in lines] == [
        "texts  variants short, tags; prompt 'Name the brand.\\x1b[2J'",
        "texts  language de",
    ]


def test_no_size_of_a_server_is_missing() -> None:
    for name in ("api", "paper"):
        assert all(not memory.unknown for memory in view_of(load_profile(name, PROFILES)).memory.values())


def test_layers_are_those_that_the_stages_compute() -> None:
    layers = ["caption", "regions", "objects", "text", "description"]
    assert view_of(load_profile("laptop", PROFILES)).layers == layers
    # as README.md says of the demo
    assert view_of(load_profile("demo", PROFILES)).layers == layers
    # the alt text is given, and no stage computes it
    assert set(LAYERS) - set(layers) == {"alt_text", "tags"}


@pytest.mark.parametrize("name", profile_names(PROFILES))
def test_every_profile_says_what_it_is_for_and_each_of_its_weights_is_known(name: str) -> None:
    view = view_of(load_profile(name, PROFILES))
    assert view.summary and view.needs and view.layers
    for one in view.models:
        if one.model.partition(":")[0] in ("hub", "pypi"):
            assert one.licence and one.download_bytes and one.parameters, one.model
        assert one.licence or one.model.startswith("server:"), one.model


def test_a_server_is_told_without_its_secrets(tmp_path: Path) -> None:
    text = (PROFILES / "paper.toml").read_text().replace("http://127.0.0.1", "http://me:hidden@127.0.0.1")
    (tmp_path / "mine.toml").write_text(text)
    told = view_of(load_profile("mine", tmp_path)).model_dump_json()
    assert "hidden" not in told and "127.0.0.1:8000" in told


def test_a_profile_with_faults_is_listed_with_them(tmp_path: Path) -> None:
    shutil.copy(PROFILES / "demo.toml", tmp_path)
    (tmp_path / "bad.toml").write_text("[stages.captoiner]\n")
    bad, demo = views(tmp_path, "demo")
    assert (bad.name, bad.default, bad.stages) == ("bad", False, [])
    assert bad.faults == ["stages.captoiner: unknown stage; did you mean 'captioner'?"]
    assert (demo.name, demo.default, demo.faults) == ("demo", True, [])
    assert demo.warnings and demo.proof is None


def test_wheels_have_the_size_that_the_download_expects() -> None:
    known = tomllib.loads(KNOWN.read_text())
    assert {model: known[model]["bytes"] for model in DOWNLOAD_BYTES} == DOWNLOAD_BYTES

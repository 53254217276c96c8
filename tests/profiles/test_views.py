"""What `strata profiles` and `GET /v1/profiles` tell of a profile."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from models.weights.inventory import PROFILES
from models.weights.wheels import DOWNLOAD_BYTES
from strata.core.profiles import load_profile, profile_names
from strata.profiles.views import KNOWN, view_of, views


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


def test_layers_are_those_that_the_stages_compute() -> None:
    assert view_of(load_profile("laptop", PROFILES)).layers == ["caption", "regions", "objects", "text", "description"]


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

"""Several images, profiles and texts; what a failure costs; and what a notebook shows."""

from __future__ import annotations

import functools
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import strata
from strata.core import Caption, Description, FailureNote, ImageReference, Record, Region, Sentence, Status
from strata.core.settings import load_settings
from strata.describing import DescribedImage, DescribedImages, Describer
from strata.describing import describer as module
from strata.describing.images import ImageSource
from strata.errors import InvalidInput
from tests.describing.conftest import Models
from tests.fakes import jpeg

BAD: list[Any] = [b"no image", "missing.jpg", None, jpeg()[:200], np.zeros(3)]


WRONG_TEXTS: list[dict[str, Any]] = [
    {"variants": "poem"},
    *({"variants": wrong} for wrong in (5, [5], 0.5, b"short", object())),
    *({"language": wrong} for wrong in ("xx1", 5, b"de")),
    {"prompt": 5},
]


def of_width(width: int) -> np.typing.NDArray[np.uint8]:
    return np.zeros((8, width, 3), np.uint8)


def test_a_bad_image_never_costs_its_neighbours(describer: Describer) -> None:
    """Each bad image stands between two good ones, over several micro-batches, in each order."""
    images = [image for bad in BAD for image in (of_width(10), bad)] + [of_width(10)]
    for given in (images, images[::-1], tuple(images), iter(images)):
        found = describer.describe(given)
        assert isinstance(found, DescribedImages)
        assert [str(one) for one in found if one.succeeded] == ["10 by 8"] * (len(BAD) + 1)
        assert len(found.failed) == len(BAD)
        assert all(one.failure and one.failure.detail for one in found.failed)


def test_an_image_that_breaks_the_pipeline_is_found_among_others(describer: Describer, models: Models) -> None:
    models.broken = {13}
    try:
        found = describer.describe([of_width(10), of_width(13), of_width(11)])
        (alone,) = describer.describe([of_width(13)])
    finally:
        models.broken = set()
    assert [one.status for one in found] == [Status.SUCCEEDED, Status.FAILED, Status.SUCCEEDED]
    assert alone.failure is not None and alone.failure.error_type == "KeyError"


def test_a_pipeline_that_computes_nothing_blames_no_image(describer: Describer, models: Models) -> None:
    models.broken = {10, 64}  # the image, and the probe
    try:
        with pytest.raises(strata.errors.StrataError, match="a test image fails too"):
            describer.describe([of_width(10)])
    finally:
        models.broken = set()


def test_models_are_loaded_once(describer: Describer, models: Models) -> None:
    describer.describe(of_width(9))
    before = len(models.built)
    describer.describe([of_width(9)] * 5)
    list(describer.each([of_width(9)]))
    assert len(models.built) == before <= 2


def test_images_of_a_generator_are_taken_as_they_are_needed(describer: Describer) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Any]:
        for number in range(10**9):
            taken.append(number)
            yield of_width(10)

    found = describer.each(endless())
    assert str(next(found)) == "10 by 8"
    assert len(taken) < 10
    found.close()  # type: ignore[attr-defined]


def test_alt_texts(describer: Describer) -> None:
    assert describer.describe(of_width(9), alt_text="a cat").alt_text == "a cat"
    found = describer.describe([of_width(9), of_width(9)], alt_text=["a", None])
    assert [one.alt_text for one in found] == ["a", None]
    one = of_width(9)
    wrong: list[tuple[Any, Any]] = [([one], "a"), ([one], ["a", "b"]), (one, ["a"]), ([one], 5), ([one], [5]), (one, 5)]
    for images, texts in wrong:
        with pytest.raises(InvalidInput, match="alt text"):
            describer.describe(images, alt_text=texts)


def test_an_array_of_four_dimensions_is_a_batch(describer: Describer) -> None:
    assert [one.height for one in describer.describe(np.zeros((3, 8, 9, 3), np.uint8))] == [8, 8, 8]


def test_progress_counts_images(describer: Describer) -> None:
    told: list[tuple[int, int | None]] = []
    describer.describe([of_width(9)] * 3, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_bar_is_drawn_where_it_is_wanted(describer: Describer, capsys: pytest.CaptureFixture[str]) -> None:
    describer.describe([of_width(9)] * 3)
    assert capsys.readouterr().err == ""
    describer.describe([of_width(9)] * 3, progress=True)
    assert capsys.readouterr().out == ""


def test_profiles_and_texts_are_checked(describer: Describer, tmp_path: Path) -> None:
    cases: list[dict[str, Any]] = [{"profile": "none"}, {"profile": tmp_path / "none.toml"}, *WRONG_TEXTS]
    for wrong in cases:
        with pytest.raises(InvalidInput):
            describer.describe(of_width(9), **wrong)
    own = tmp_path / "own.toml"
    own.write_text(
        (describer.settings.profiles_dir / "fake.toml").read_text().replace("[rules]", "[rules]\nsmallest_side = 9")
    )
    assert describer.describe(of_width(9), own).failure.error_type == "smallest_side"
    assert describer.describe(of_width(9), str(own)).status is Status.FILTERED


def test_a_closed_describer_says_so(describer: Describer) -> None:
    other = Describer(describer.settings)
    other.close()
    with pytest.raises(InvalidInput, match="closed"):
        other.describe(of_width(9))


def test_the_shared_describer_is_made_again_after_it_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    module._shared.clear()
    first = strata.describing.shared()
    assert strata.describing.shared() is first
    first.close()
    second = strata.describing.shared()
    assert second is not first and not second.closed
    module._shared.clear()


def test_transformers_is_quiet_only_while_images_are_described(
    describer: Describer, models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    def loud(run: Any, self: Any, batch: Any) -> Any:
        logging.get_logger("transformers.generation").warning("advice")
        list(logging.tqdm(range(2), desc="Loading weights"))
        return run(self, batch)

    before, environment = logging.get_verbosity(), dict(os.environ)
    logging.set_verbosity_warning()
    warned = logging.get_verbosity()
    describer.describe(of_width(9))
    kind = type(models.built[0])
    monkeypatch.setattr(kind, "run", functools.partialmethod(functools.partial(loud, kind.run)))  # type: ignore[attr-defined]
    list(zip(describer.each([of_width(9)] * 9), describer.each([of_width(9)] * 9), strict=True))
    assert "advice" not in capsys.readouterr().err
    assert logging.get_verbosity() == warned and dict(os.environ) == environment
    list(logging.tqdm(range(2), desc="of the caller"))
    assert "of the caller" in capsys.readouterr().err
    logging.set_verbosity(before)


def test_strata_imports_nothing_slow() -> None:
    code = "import sys, strata; print(sorted(set(sys.modules) & {'torch', 'pydantic', 'PIL', 'numpy', 'httpx'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert {"describe", "Describer", "Client"} <= set(dir(strata))
    with pytest.raises(AttributeError):
        getattr(strata, NOTHING)


NOTHING = "nothing"
HOSTILE = '<script>alert("x")</script>'


def drawn(**changes: Any) -> DescribedImage:
    """A record whose every text is hostile, with its image."""
    record = Record(
        key=HOSTILE,
        image=ImageReference(uri=HOSTILE, size=1),
        width=32,
        height=24,
        alt_text=HOSTILE,
        profile=HOSTILE,
        caption=Caption(text=HOSTILE, score=1.0),
        regions=[Region(box=(1, 2, 10, 12), phrase=HOSTILE, score=0.5)],
        description=Description(text=HOSTILE, sentences=[Sentence(text=HOSTILE, evidence=["regions/0"])]),
    ).model_copy(update=changes)
    return DescribedImage.of(record, ImageSource(Image.new("RGB", (32, 24), "red")), load_settings())


def test_a_notebook_shows_picture_boxes_sentences_and_evidence() -> None:
    page = drawn()._repr_html_()
    assert "data:image/jpeg;base64," in page
    assert 'class="box regions"' in page and 'x="1.0"' in page
    assert "regions/0" in page and 'class="sentence regions"' in page


def test_what_a_notebook_shows_is_escaped_and_loads_nothing() -> None:
    note = FailureNote(stage="decode", error_type=HOSTILE, detail=HOSTILE)
    failed = drawn(status=Status.FAILED, failure=note)
    pages = [drawn()._repr_html_(), failed._repr_html_(), DescribedImages([drawn(), drawn()])._repr_html_()]
    for page in pages:
        assert "<script" not in page and "&lt;script&gt;" in page
        assert not re.search(r'(?:href|src)="(?!data:)|url\(|@import|https?://', page)
        # its style reaches only what is within it
        style = page.partition("<style>")[2].partition("</style>")[0]
        rules = [line for line in style.splitlines() if "{" in line]
        assert rules and all(rule.startswith(".strata-described") for rule in rules)


def test_a_record_without_its_image_is_drawn_too(tmp_path: Path, picture: Path, describer: Describer) -> None:
    described = describer.describe(picture)
    picture.unlink()
    assert "the image cannot be read now" in described._repr_html_()
    with pytest.raises(FileNotFoundError):
        described.picture()


def test_many_images_are_drawn_in_part() -> None:
    page = DescribedImages([drawn()] * 30)._repr_html_()
    assert page.count("<article") == 24 and "and 6 more" in page


def test_described_images_can_be_pickled_and_sent_as_json(describer: Describer, picture: Path) -> None:
    described = describer.describe(picture)
    again = pickle.loads(pickle.dumps(described))
    assert again == described and again.picture().size == (32, 24)
    assert Record.model_validate_json(described.model_dump_json()).caption == described.caption


def test_threads_share_one_describer(monkeypatch: pytest.MonkeyPatch) -> None:
    module._shared.clear()
    made, together = module.Describer, threading.Barrier(4)

    def slow() -> Describer:
        together.wait(30)
        return made()

    monkeypatch.setattr(module, "Describer", slow)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: id(module.shared()), range(4)))
    module._shared.clear()
    assert len(found) == 1

"""The page of `strata report` in a real browser: opened from a file, on a phone too, accessible in both themes."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.core.profiles import load_profile
from strata.core.settings import Settings
from strata.store.provenance import keep_profile
from strata.store.store import Store
from tests.cli.test_cli import code_of
from tests.described import write_part
from tests.evaluation.conftest import record_of, samples
from tests.studio.conftest import NARROW, WIDE, Opener, Theme

AXE = Path(__file__).parent / "vendor" / "axe.min.js"


@pytest.fixture
def page(tmp_path: Path) -> str:
    """The address of a report on the scenes of the bundled shard."""
    profile = load_profile("demo", Settings().profiles_dir)
    store = Store(str(tmp_path / "store"))
    write_part(store, [record_of(*sample) for sample in samples()[:12]], fingerprint=profile.fingerprint("llm"))
    keep_profile(store, profile)
    path = tmp_path / "report.html"
    assert code_of("report", "demo", "--store", store.uri, "-o", str(path), "--records", "2", "--resamples", "100") == 0
    return path.as_uri()


@pytest.mark.parametrize(("width", "theme"), [(WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")])
def test_the_report_fits_and_is_accessible(opened: Opener, page: str, width: int, theme: Theme) -> None:
    with opened(page, width=width, theme=theme) as shown:
        assert shown.locator("article").count() == 6
        # every picture is drawn, and nothing makes the page wider than the window
        loaded = "Promise.all([...document.querySelectorAll('image')].map((one) => one.decode()))"
        shown.evaluate(f"() => {loaded}.then(() => true)")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        shown.locator("details").evaluate_all("(all) => all.forEach((one) => { one.open = true; })")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        shown.evaluate(AXE.read_text(encoding="utf-8"))
        told = "done.violations.map((one) => [one.id, one.impact, one.nodes[0].html])"
        found = shown.evaluate(f"axe.run().then((done) => {told})")
        assert [one for one in found if one[1] in ("serious", "critical")] == []

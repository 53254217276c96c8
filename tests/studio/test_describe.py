"""Describe: from a dropped image to its evidence, layer by layer; the answer stays; errors can be read."""

from __future__ import annotations

import base64
import io
import re

from PIL import Image
from playwright.sync_api import FilePayload, Page, Route, expect

from samples.scenes import make_scene
from tests.studio.conftest import WIDTHS, Opener, Scenes
from tests.studio.scene_machine import CUT, OPTIONS, scene_bytes

SEED = 5


def drop(page: Page, data: bytes, name: str = "scene.png") -> None:
    """Drop a file on the page, as a person does: once it is drawn."""
    page.locator("#drop").wait_for()
    page.evaluate(
        """([text, name]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type: "image/png" }));
          const drop = document.getElementById("drop");
          for (const type of ["dragover", "drop"]) {
            drop.dispatchEvent(new DragEvent(type, { dataTransfer: data, cancelable: true, bubbles: true }));
          }
        }""",
        [base64.b64encode(data).decode(), name],
    )


def describe(page: Page, seed: int = SEED) -> None:
    """Drop a scene, with the alt text by which the workers know it."""
    page.get_by_label("Alt text").fill(f"scene {seed}")
    drop(page, scene_bytes(seed))


def test_layers_arrive_while_stages_run(scenes: Scenes, opened: Opener) -> None:
    scene = make_scene(SEED, OPTIONS)
    scenes.vision.go_on.clear()
    try:
        with opened(f"{scenes.url}/") as page:
            describe(page)
            # the caption is told while the other layers are computed
            expect(page.locator(".entries.caption")).to_contain_text(scene.caption)
            expect(page.locator(".entries.objects")).to_have_count(0)
            # the address has the job: a reload finds what was told so far, and the picture before there is a record
            page.reload()
            expect(page.locator(".entries.caption")).to_contain_text(scene.caption)
            expect(page.locator(".panzoom img")).to_be_visible()
            scenes.vision.go_on.set()
            expect(page.locator(".entries.objects .entry")).to_have_count(len(scene.objects))
            expect(page.locator(".sentences")).to_contain_text(f"There is {scene.objects[0].phrase}.")
    finally:
        scenes.vision.go_on.set()


def test_a_sentence_lights_its_evidence_and_a_box_its_sentences(scenes: Scenes, opened: Opener) -> None:
    scene = make_scene(SEED, OPTIONS)
    with opened(f"{scenes.url}/") as page:
        describe(page)
        sentence = page.locator(".sentence", has_text=f"There is {scene.objects[0].phrase}.").first
        sentence.hover()
        expect(page.locator(".shape.objects.lit")).to_have_count(1)
        expect(page.locator(".entries.objects .entry.lit")).to_have_count(1)
        expect(page.locator(".crop svg")).to_be_visible()
        # its mask is drawn where it is: as large as its box
        measured = "(shape) => ['x', 'y', 'width', 'height'].map((name) => shape.getBBox()[name])"
        box = page.locator(".shape.objects.lit").evaluate(measured)
        x1, y1, x2, y2 = scene.objects[0].box
        assert [round(value) for value in box] == [round(value) for value in (x1, y1, x2 - x1, y2 - y1)]
        # it alone is lit, though others rest on the same caption
        expect(page.locator(".sentence.lit")).to_have_count(1)
        # from the box to its sentence, and a click keeps it lit
        page.mouse.move(0, 0)
        expect(page.locator(".sentence.lit")).to_have_count(0)
        page.locator(".shape.objects").last.dispatch_event("pointerenter")
        expect(page.locator(".sentence.lit")).to_have_count(1)
        # with the keyboard alone
        sentence.focus()
        page.keyboard.press("Enter")
        page.mouse.move(0, 0)
        page.get_by_label("Theme").focus()
        expect(sentence).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".shape.objects.lit")).to_have_count(1)


def test_what_was_cut_and_dropped_is_told_with_reasons(scenes: Scenes, opened: Opener) -> None:
    with opened(f"{scenes.url}/") as page:
        describe(page)
        cut = page.locator(".sentence.cut")
        expect(cut).to_contain_text(CUT)
        expect(cut).to_contain_text("cut: unsupported object")
        page.get_by_text("1 checked claim").click()
        expect(page.locator(".claims")).to_contain_text("thing: a golden crown")
        # the dropped region: in the list behind a summary, on the picture if it is asked for
        page.locator(".entries.regions summary").click()
        expect(page.locator(".entries.regions .entry.dropped")).to_contain_text("a golden crown")
        expect(page.locator(".entries.regions .entry.dropped")).to_contain_text("low match")
        expect(page.locator(".entries.regions .entry.dropped")).to_contain_text("match 2 %")
        expect(page.locator(".shape.dropped")).to_have_count(0)
        page.get_by_label("dropped entries too").check()
        expect(page.locator(".shape.dropped")).to_have_count(1)
        page.get_by_label(re.compile("^regions")).uncheck()
        expect(page.locator(".shape.regions")).to_have_count(0)
        expect(page.locator(".shape.objects").first).to_be_attached()


def test_the_answer_survives_a_reload_and_two_lie_side_by_side(scenes: Scenes, opened: Opener) -> None:
    with opened(f"{scenes.url}/") as page:
        describe(page)
        expect(page.locator(".sentences")).to_be_visible()
        page.reload()
        expect(page.locator(".sentences")).to_be_visible()
        expect(page.locator(".panzoom img")).to_have_js_property("complete", True)
        # two texts of one record
        page.get_by_label("Beside it").select_option("short.en")
        expect(page.locator(".texts .sentences")).to_have_count(2)
        page.reload()
        expect(page.locator(".texts .sentences")).to_have_count(2)
        # two answers
        job = re.search(r"#/describe/(\w+)", page.url)
        assert job
        page.goto(f"{scenes.url}/#/describe/{job[1]},{job[1]}")
        expect(page.locator(".beside .panel")).to_have_count(2)
        first, second = (panel.bounding_box() for panel in page.locator(".beside .panel").all())
        assert first and second and first["y"] == second["y"] and second["x"] > first["x"]


def test_a_picture_can_be_enlarged_with_keys(scenes: Scenes, opened: Opener) -> None:
    with opened(f"{scenes.url}/") as page:
        describe(page)
        expect(page.locator(".sentences")).to_be_visible()
        page.locator(".frame").focus()
        page.keyboard.press("+")
        expect(page.locator(".content")).to_have_css("transform", re.compile(r"matrix\(1\.4"))
        page.keyboard.press("0")
        expect(page.locator(".content")).to_have_css("transform", re.compile(r"matrix\(1,"))


def test_errors_can_be_read(scenes: Scenes, opened: Opener) -> None:
    with opened(f"{scenes.url}/", expected=("422", "400", "404")) as page:
        drop(page, b"this is no image", "notes.txt")
        fault = page.locator("#main .fault")
        expect(fault).to_contain_text("image")
        expect(fault).not_to_contain_text("{")
        page.goto(f"{scenes.url}/#/describe/{'0' * 22}")
        expect(page.locator(".panel .fault")).to_contain_text("Unknown job")


def test_one_bad_file_of_several_keeps_no_other_back(scenes: Scenes, opened: Opener) -> None:
    with opened(f"{scenes.url}/", expected=("422", "400")) as page:
        page.get_by_label("Alt text").fill(f"scene {SEED}")
        files = [("broken.jpg", b"hello"), ("scene.png", scene_bytes(SEED)), ("empty.jpg", b"")]
        page.locator("#drop input").set_input_files(
            [FilePayload(name=name, mimeType="image/png", buffer=data) for name, data in files]
        )
        fault = page.locator("#main .fault")
        expect(fault).to_contain_text("broken.jpg: ")
        expect(fault).to_contain_text("empty.jpg: ")
        expect(fault).not_to_contain_text("scene.png")
        expect(page.locator(".sentences")).to_be_visible()


@WIDTHS
def test_a_picture_has_its_height_before_it_is_there(scenes: Scenes, opened: Opener, width: int) -> None:
    with opened(f"{scenes.url}/", width, bypass_csp=True) as page:
        describe(page)
        expect(page.locator(".sentences")).to_be_visible()
        waiting: list[Route] = []
        page.route("**/preview.jpg*", lambda route: waiting.append(route))
        page.reload()
        expect(page.locator(".sentences")).to_be_visible()
        height = "document.querySelector('.frame').offsetHeight"
        before = page.evaluate(height)
        assert before > 150
        while not waiting:
            page.wait_for_timeout(20)
        for route in waiting:
            route.continue_()
        page.unroute("**/preview.jpg*")
        expect(page.locator(".frame img")).to_be_visible()
        page.wait_for_function("document.querySelector('.frame img').complete")
        assert abs(page.evaluate(height) - before) <= 1


@WIDTHS
def test_describe_shows_the_answer(scenes: Scenes, opened: Opener, width: int) -> None:
    scenes.vision.go_on.clear()
    try:
        with opened(f"{scenes.url}/", width) as page:
            describe(page)
            # a picture whose size is not known yet has a frame, and the answer is seen without scrolling
            expect(page.locator(".frame")).to_be_in_viewport(ratio=0.5)
            assert page.evaluate("document.querySelector('.frame').offsetHeight") > 100
            scenes.vision.go_on.set()
            expect(page.locator(".sentences")).to_be_visible()
            expect(page.locator(".panel h2")).to_be_in_viewport()
    finally:
        scenes.vision.go_on.set()


def test_a_picture_that_the_browser_cannot_show(scenes: Scenes, opened: Opener) -> None:
    data = io.BytesIO()
    Image.open(io.BytesIO(scene_bytes(3))).save(data, "TIFF")
    scenes.vision.go_on.clear()
    try:
        with opened(f"{scenes.url}/") as page:
            page.locator("input[type=file]").set_input_files(
                {"name": "scan.tif", "mimeType": "image/tiff", "buffer": data.getvalue()}
            )
            expect(page.locator(".panel .no-picture")).to_have_text("The picture cannot be shown yet.")
            scenes.vision.go_on.set()
            expect(page.locator(".frame img")).to_be_visible()
            expect(page.locator(".no-picture")).to_have_count(0)
    finally:
        scenes.vision.go_on.set()

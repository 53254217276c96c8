"""Pages of documents as images: files in a folder, or pages of PDF files that are rendered when they are read."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Sequence

from strata.errors import DataError
from strata.store import file_system

DPI = 200  # dots per inch of a rendered page: 1654 by 2339 pixels for A4
_PAGE = re.compile(r"^(.*\.pdf)#page=(\d+)$", re.IGNORECASE | re.DOTALL)
_LOCK = threading.Lock()  # PDFium must not be called by two threads at a time
EXTENSIONS = (".png", ".jpg", ".jpeg")


class PageError(DataError, ValueError):
    """A page of a PDF file cannot be rendered."""


class PageFinder:
    """Finds the pages of documents in a folder, in the layouts in which the data of DUE is passed on.

    NAME.png or NAME.jpg, NAME_0.png, the folder NAME with 0.png (of due-benchmark/baselines), and NAME.pdf. Numbers in
    names of images begin with 0 if there is such a page, else with 1.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.names = frozenset(_names(root))

    def page(self, reference: str) -> str:
        """The path below the folder of a page that is named NAME#page=N (from 1; the first without it).

        It is that of the PDF file if there is no image.
        """
        name, _, digits = reference.rpartition("#page=")
        name, number = (name, int(digits) - 1) if name else (reference, 0)
        first = 0 if self._image(f"{name}_0") else 1
        for stem in [name] * (number == 0) + [f"{name}_{number + first}"]:
            if found := self._image(stem):
                return found
        if name in self.names:
            inside = [page for page in _names(f"{self.root}/{name}") if page.lower().endswith(EXTENSIONS)]
            if number < len(inside):
                return f"{name}/{sorted(inside, key=_page_number)[number]}"
        return f"{name}.pdf#page={number + 1}"

    def _image(self, stem: str) -> str | None:
        return next((stem + extension for extension in EXTENSIONS if stem + extension in self.names), None)


def _page_number(name: str) -> int:
    digits = re.findall(r"\d+", name)
    return int(digits[-1]) if digits else 0


def _names(folder: str) -> Sequence[str]:
    filesystem, path = file_system(folder)
    try:
        return [name.rstrip("/").rpartition("/")[2] for name in filesystem.ls(path, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def pdf_of(uri: str) -> tuple[str, int] | None:
    """The PDF file and the page (from 1) that a URI FILE.pdf#page=N means; None for other URIs."""
    match = _PAGE.match(uri)
    return (match[1], int(match[2])) if match else None


def render_page(data: bytes, page: int) -> bytes:
    """Render a page (from 1) of a PDF file as a PNG of DPI dots per inch. Raises PageError."""
    try:
        import pypdfium2
    except ImportError:
        raise PageError(
            "pages of PDF files need the extra `pdf`: pip install 'strata[pdf]', or render them first: "
            f"mkdir NAME && pdftoppm -r {DPI} -png NAME.pdf NAME/page"
        ) from None
    with _LOCK:
        try:
            document = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            raise PageError(f"not a PDF file: {error}") from None
        try:
            if not 1 <= page <= len(document):
                raise PageError(f"no page {page} of {len(document)}")
            image = document[page - 1].render(scale=DPI / 72).to_pil()
        finally:
            document.close()
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

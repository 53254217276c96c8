"""The command `strata caption`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strata.cli import exits
from strata.cli.images.targets import Target, checked_arguments, targets_of
from strata.cli.terminal import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Language,
    ProfileName,
    Prompt,
    Url,
    Variants,
    follow_job,
    open_client,
    output,
    progress,
)
from strata.errors import JobFailed, RequestRefused
from strata.files import writing

if TYPE_CHECKING:
    from strata.cli.images.files import CaptionFiles
    from strata.client import Client
    from strata.core import Record, TextSettings

AT_A_TIME = 4  # images that the service is asked about
LAYERS = ("description", "caption")  # texts that are not variants
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE",
        help="Files, folders, globs in quotes, URLs; - reads an image, or a list of paths, from stdin.",
        callback=checked_arguments,
    ),
]


def caption(
    images: Images,
    alt_text: Annotated[str | None, typer.Option("--alt-text", help="The image's alt text.")] = None,
    profile: ProfileName = None,
    write_txt: Annotated[bool, typer.Option("--write-txt", help="Write photo.txt beside photo.jpg.")] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV file: file_name,text.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace captions that exist.")] = False,
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="NAME", help="Text to write: caption, short, tags, …")
    ] = None,
    variants: Variants = None,
    language: Language = None,
    prompt: Prompt = None,
    overlay: Annotated[Path | None, typer.Option(metavar="DIR", help="Save pictures of the layers.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Caption images: print their layers, or write captions to files. The first problem gives the exit code.

    Captions that exist are kept, so that the same command goes on after an interruption.
    """
    from strata.cli.arguments import texts_of

    files = _files(write_txt, csv_file, overwrite, variant)
    # a text that is written is asked for
    wanted = [variants, variant if variant not in (None, *LAYERS) else None]
    texts = texts_of(",".join(filter(None, wanted)) or None, language, prompt)
    targets = targets_of(images)
    missing = targets if files is None else files.missing(targets)
    with open_client(url, api_key) as client:
        run = _Run(client, files, variant, overlay, as_json, alone=len(targets) == 1)
        run.run(missing, lambda target: _captioned(client, target, alt_text, profile, texts, run.alone))
    raise typer.Exit(run.code)


def _files(write_txt: bool, csv_file: Path | None, overwrite: bool, variant: str | None) -> CaptionFiles | None:
    """Where captions are written to; None: they are printed. Raises InvalidInput for options that do not fit."""
    from strata.cli.images.files import CsvFile, TextFiles
    from strata.errors import InvalidInput

    if (overwrite or variant) and not (write_txt or csv_file):
        raise InvalidInput("--overwrite and --variant are for --write-txt and --csv")
    if write_txt and csv_file:
        raise InvalidInput("--write-txt and --csv cannot be used together")
    if csv_file is not None:
        return CsvFile(csv_file, overwrite)
    return TextFiles(overwrite) if write_txt else None


class _Run:
    """What becomes of each image: it is printed or written, or its problem is told. code: the exit code so far."""

    def __init__(
        self,
        client: Client,
        files: CaptionFiles | None,
        variant: str | None,
        overlay: Path | None,
        as_json: bool,
        alone: bool,
    ) -> None:
        self.client, self.files, self.variant, self.overlay, self.as_json = client, files, variant, overlay, as_json
        self.alone, self.code, self.without = alone, 0, 0

    def run(self, targets: list[Target], act: Callable[[Target], tuple[Record, str | None]]) -> None:
        """Describe the images and deal with each in order. Raises an error of the service itself."""
        from strata.client.bulk import in_turn

        if self.files is None:
            for target, done in in_turn(act, targets, 1 if self.alone else AT_A_TIME):
                self._deal(target, done)
            return
        try:
            with progress() as bar:
                task = bar.add_task("captions", total=len(targets))
                for target, done in in_turn(act, targets, AT_A_TIME):
                    self._deal(target, done)
                    bar.advance(task)
        finally:
            self._tell_counts()

    def _deal(self, target: Target, done: Future[tuple[Record, str | None]]) -> None:
        """Print or write one image's record. An image that fails or is refused is told, and the others go on."""
        from strata.client import ApiError
        from strata.core import Status
        from strata.errors import plain_line

        try:
            record, job_id = done.result()
        except ApiError as error:
            # a failure of the service itself, or of the key, would repeat for every image
            if error.problem.status >= 500 or error.problem.status in (401, 403):
                raise
            return self._problem(f"{target.name}: {error}", exits.REQUEST_REFUSED)
        except JobFailed as error:
            return self._problem(str(error), exits.JOB_FAILED)
        except OSError as error:  # its file is gone, or cannot be read
            return self._problem(plain_line(error), exits.USAGE)
        if self.files is not None:
            self._write(self.files, target, record)
        else:
            _show(record, target.name, self.as_json)
        if self.overlay and record.status is not Status.FAILED:
            _save_overlay(self.client, job_id, record, self.overlay / f"{_file_name(target)}.overlay.png")
        # the first problem determines the exit code
        if record.status is Status.FAILED:
            self.code = self.code or exits.JOB_FAILED
        return None

    def _write(self, files: CaptionFiles, target: Target, record: Record) -> None:
        text = text_of(record, self.variant) if record.failure is None else ""
        if text:
            files.write(target, text)
        else:
            note = record.failure
            why = f"{note.error_type}: {note.detail}" if note else "nothing that the profile knows was found"
            _tell(f"{target.name}: {why}")
            self.without += 1
        if self.as_json:
            print(record.model_dump_json(), flush=True)

    def _problem(self, line: str, code: int) -> None:
        _tell(line)
        self.code = self.code or code

    def _tell_counts(self) -> None:
        from strata.counts import counted

        assert self.files is not None
        without = f", {self.without} without a text" if self.without else ""
        counts = f"{counted(self.files.written, 'caption')} written, {self.files.kept} kept{without}"
        print(counts, file=sys.stderr, flush=True)


def text_of(record: Record, variant: str | None) -> str:
    """The text of a record that is written: the variant, or the description, or without one the caption.

    "" if there is none, or one that tells of the profile and not of the image.
    """
    from strata.core import NOTHING_FOUND

    text = ""
    if variant not in (None, *LAYERS):
        text = next((one.text for one in record.variants or () if one.name == variant), "")
    elif variant != "caption" and record.description is not None:
        text = record.description.text
    elif variant != "description" and record.caption is not None and record.caption.kept:
        text = record.caption.text
    return "" if text == NOTHING_FOUND else text


def _tell(problem: str) -> None:
    """Print why an image has no record, without control characters of its name."""
    from strata.cli.rendering.records import clean

    print(f"strata: {clean(problem)}", file=sys.stderr)


def _show(record: Record, name: str, as_json: bool) -> None:
    from strata.cli.rendering import records as render

    if as_json:
        print(record.model_dump_json(), flush=True)
    else:
        output().print(render.layers_tree(record, name))


def _captioned(
    client: Client,
    target: Target,
    alt_text: str | None,
    profile: str | None,
    texts: TextSettings | None,
    alone: bool,
) -> tuple[Record, str | None]:
    """The record of one image and its job's id. Raises JobFailed if the job ends without a record."""
    from strata.cli.rendering import records as render

    captioned = client.captioned(target.image, alt_text, profile, 30, texts)
    if captioned.record is not None:
        return captioned.record, captioned.job_id
    # not finished within the wait: follow the job to its end, then fetch its record
    assert captioned.job_id is not None
    job_id = captioned.job_id
    final = follow_job(client, job_id) if alone else client.wait(job_id)
    record = next(client.results(job_id), None)
    if record is None:
        reasons = [render.failure_line(row) for row in client.failures(job_id)]
        reasons = reasons or [render.job_line(final) if final else "the job ended without a record"]
        raise JobFailed(f"{target.name}: {reasons[0]}")
    return record, job_id


def _save_overlay(client: Client, job_id: str | None, record: Record, path: Path) -> None:
    from strata.cli.rendering.records import clean

    if job_id is None:
        raise RequestRefused("the service's response has no job id, which the overlay needs")
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        path.write_bytes(client.overlay(job_id, record.key))
    print(f"overlay: {clean(str(path))}", file=sys.stderr)


def _file_name(target: Target) -> str:
    """A name for a file of its own: that of the image's file, or the end of its address."""
    if target.path is not None:
        return target.path.name
    return target.name.partition("?")[0].rstrip("/").rpartition("/")[2] or "image"

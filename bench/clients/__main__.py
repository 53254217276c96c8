"""`python -m bench.clients`: clients that generators make of the OpenAPI document, against a running service.

Each client describes an image, submits a shard with a broken image, follows the job, reads its failures, and asks for a
job that does not exist. What it gets must be what Strata's own client gets. The service is real, with stages that
compute nothing. The generators' packages have environments of their own:

    python -m venv CLIENTS && CLIENTS/bin/pip install -r bench/clients/requirements.txt
    mkdir CLIENTS/node && cp bench/clients/package.json CLIENTS/node && npm install --prefix CLIENTS/node
    python -m bench.clients --python CLIENTS/bin/python --node CLIENTS/node

A generator whose packages are missing is left out, and named. It prints a line for each client, and ends with exit code
1 if one of them has got anything else, or if none was tried.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.inputs.tiny_shards import tiny_jpeg, write_shard
from bench.processes import Fleet
from strata.client import ApiError, Client
from strata.core import Record

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "scripts"
WORKERS = (["--groups", "index,vision"], ["--groups", "llm"])
SECONDS = 300.0  # that one command may take


class Failed(Exception):
    """A generator or a client has failed; the message is what it said last."""


@dataclass(frozen=True)
class Place:
    """Where a client is made. folder: its own; python, node: the environments that were given, if any."""

    folder: Path
    document: Path
    python: Path | None
    node: Path | None


def run(command: Sequence[str | Path], folder: Path) -> str:
    """The output of a command that runs in a folder. Raises Failed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, check=False, encoding="utf-8", timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error
    if done.returncode:
        raise Failed("\n".join((done.stdout + done.stderr).strip().splitlines()[-20:]))
    return done.stdout


def of_openapi_python_client(place: Place) -> list[str | Path] | None:
    """Make the client; the command that tries it, None without its packages."""
    if place.python is None or not (tool := place.python.parent / "openapi-python-client").exists():
        return None
    made: list[str | Path] = ["--meta", "none", "--output-path", place.folder / "strata_client"]
    config = HERE / "openapi-python-client.yml"
    told = run([tool, "generate", "--path", place.document, "--config", config, *made], place.folder)
    if "WARNING" in told.upper():  # it leaves out what it does not understand
        raise Failed(told)
    return [place.python, SCRIPTS / "openapi_python_client.py"]


def of_datamodel_code_generator(place: Place) -> list[str | Path] | None:
    """Make the models; the command that tries them, None without its packages."""
    if place.python is None or not (tool := place.python.parent / "datamodel-codegen").exists():
        return None
    options = ["--input-file-type", "openapi", "--output-model-type", "pydantic_v2.BaseModel"]
    run([tool, "--input", place.document, *options, "--output", place.folder / "strata_models.py"], place.folder)
    return [place.python, SCRIPTS / "datamodel_code_generator.py"]


def of_openapi_typescript(place: Place) -> list[str | Path] | None:
    """Make the types and compile with them; the command that tries them, None without its packages."""
    if place.node is None or not (tools := place.node / "node_modules" / ".bin").exists():
        return None
    (place.folder / "node_modules").symlink_to(place.node.resolve() / "node_modules")
    shutil.copy(HERE / "package.json", place.folder)
    shutil.copy(SCRIPTS / "openapi_typescript.mts", place.folder)
    # a field with a default need not be sent
    made = ["--default-non-nullable=false", "--output", "strata.d.ts"]
    run([tools.resolve() / "openapi-typescript", place.document, *made], place.folder)
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--types", "node"]
    run([tools.resolve() / "tsc", *options, "openapi_typescript.mts"], place.folder)
    return ["node", "openapi_typescript.mjs"]


CLIENTS: dict[str, Callable[[Place], list[str | Path] | None]] = {
    "openapi-python-client": of_openapi_python_client,
    "datamodel-code-generator": of_datamodel_code_generator,
    "openapi-typescript": of_openapi_typescript,
}


def expected(url: str, image: Path, shard: Path) -> dict[str, Any]:
    """What Strata's own client gets."""
    with Client(url) as client:
        record = client.caption(image, wait=60)
        assert isinstance(record, Record) and record.description is not None
        job = client.wait(client.submit([str(shard)]).id, poll=0.1)
        rows = list(client.failures(job.id))
        try:
            client.job("none")
            unknown = ""
        except ApiError as error:
            unknown = error.problem.type
    return {
        "description": record.description.text,
        "status": job.status.value,
        "counts": [job.request_counts.succeeded, job.request_counts.failed],
        "failures": [[row.key, row.failure.error_type] for row in rows],
        "problem": unknown,
    }


def results(work: Path, python: Path | None, node: Path | None) -> Iterator[tuple[str, bool | None]]:
    """The line of each client; and whether it got what was wanted, None if it was left out."""
    image, shard, document = work / "image.jpg", work / "shards" / "00000.tar", work / "openapi.json"
    image.write_bytes(tiny_jpeg(1))
    write_shard(shard, 0, 3, {1: b"no image"})
    with Fleet(work / "service", str(shard.parent), WORKERS) as fleet:
        fleet.wait_ready()
        document.write_bytes(httpx.get(f"{fleet.url}/openapi.json", trust_env=False).content)
        wanted = expected(fleet.url, image, shard)
        for name, make in CLIENTS.items():
            folder = work / name
            folder.mkdir()
            try:
                command = make(Place(folder, document, python, node))
                if command is None:
                    yield f"{name}: left out, its packages are missing", None
                    continue
                arguments = ["env", f"PYTHONPATH={folder}", *command, fleet.url, image, shard]
                yield f"{name}: {told(json.loads(run(arguments, folder)), wanted)}", True
            except Failed as error:
                yield f"{name}: FAILED: {error}", False


def told(got: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What a client has got, in words. Raises Failed if that is not what was wanted."""
    if got != wanted:
        raise Failed(f"got {got}, and not {wanted}")
    failures = ", ".join(f"{key} {kind}" for key, kind in got["failures"])
    succeeded, failed = got["counts"]
    job = f"job {got['status']}, {succeeded} succeeded, {failed} failed ({failures})"
    return f"{got['description']!r}; {job}; {got['problem']}"


def main() -> None:
    """Try each client, and print its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="the Python that has the packages of requirements.txt")
    parser.add_argument("--node", type=Path, help="a folder in which those of package.json are installed")
    options = parser.parse_args()
    python = options.python and options.python.absolute()  # not resolved: a link leads out of its environment
    ends = []
    with tempfile.TemporaryDirectory(prefix="strata-clients-") as work:
        for line, right in results(Path(work), python, options.node):
            print(line, flush=True)
            ends.append(right)
    sys.exit(0 if True in ends and False not in ends else 1)


if __name__ == "__main__":
    main()

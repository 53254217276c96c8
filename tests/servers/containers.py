"""Build images and run services as processes of this machine, without a container engine.

An image's files are laid out in a folder, its variables are the whole environment, its commands are the Dockerfile's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

import dockerfile
import yaml

from tests.checkout import CHECKOUT
from tests.secrets import SECRET

FILE = CHECKOUT / "docker-compose.yml"
WITHOUT_GPU = CHECKOUT / "docker-compose.cpu.yml"
SHARDS = CHECKOUT / "samples" / "shards"
LONGEST = 600.0  # seconds that a service may run here
KEY = f"key-{SECRET}"
GIVEN = {"STRATA_API_KEY": KEY, "REDIS_PASSWORD": f"word{SECRET}"}  # what the user's shell or .env must have
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
VARIABLE = re.compile(r"\$\{(\w+)")
_CONTENT = re.compile(r"(\w+)(?::([-?+])(.*))?", re.DOTALL)


def interpolated(value: Any, given: Mapping[str, str]) -> Any:
    """Substitute the variables in a value of the file, as Compose does: ${NAME}, and :-, :+ and :?, also nested."""
    if isinstance(value, dict):
        return {name: interpolated(inner, given) for name, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, given) for inner in value]
    if not isinstance(value, str):
        return value
    before, found, rest = value.partition("${")
    if not found:
        return value
    end = next(place for place in range(len(rest)) if rest[:place].count("${") < rest[: place + 1].count("}"))
    return before + _filled(rest[:end], given) + str(interpolated(rest[end + 1 :], given))


def _filled(content: str, given: Mapping[str, str]) -> str:
    """What stands in place of `${content}`."""
    match = _CONTENT.fullmatch(content)
    assert match, content
    name, kind, text = match.groups()
    assert kind in ("-", "+") or given.get(name), f"{name}: {text}"
    if kind == "+":
        return str(interpolated(text, given)) if given.get(name) else ""
    return given.get(name) or str(interpolated(text or "", given))


_RESET = object()  # what Compose's tag `!reset` says


def merged(content: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Content with an override file's, as Compose merges mappings; what is marked `!reset` is left out."""
    found = dict(content)
    for name, value in override.items():
        old = found.pop(name, None)
        if value is not _RESET:
            found[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found


def without_gpu() -> dict[str, Any]:
    """The content of the file as it is with docker-compose.cpu.yml."""
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!reset", lambda *_: _RESET)
    override: dict[str, Any] = yaml.load(WITHOUT_GPU.read_text(encoding="utf-8"), loader)
    return merged(yaml.safe_load(FILE.read_text(encoding="utf-8")), override)


@cache
def stages() -> dict[str, list[dockerfile.Command]]:
    """The instructions of the Dockerfile's stages by name, each beginning with FROM."""
    found: dict[str, list[dockerfile.Command]] = {}
    for command in dockerfile.parse_file(str(CHECKOUT / "Dockerfile")):
        if command.cmd == "FROM":
            name = command.value[-1]
            found[name] = []
        found[name].append(command)
    return found


def commands(target: str, *kinds: str) -> list[dockerfile.Command]:
    """The commands of a stage and of its parent stages, in order, without those of `base`, which need root."""
    first, *own = stages()[target]
    below = commands(first.value[0], *kinds) if first.value[0] in stages() else []
    return below + [command for command in own if command.cmd in kinds]


def environment_of(target: str) -> dict[str, str]:
    """The variables that an image sets."""
    words = [word for command in commands(target, "ENV") for word in command.value]
    return dict(zip(words[::2], words[1::2], strict=True))


def copy(command: dockerfile.Command, root: Path) -> None:
    """Execute a COPY from the checkout, without the files that .dockerignore excludes."""
    allowed = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    *sources, target = command.value
    for source in sources:
        assert source.split("/")[0] in allowed, f"{source} is ignored"
        place = root / target / Path(source).name if target.endswith("/") else root / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / source).is_dir():
            shutil.copytree(CHECKOUT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / source, place)


def lay_out(target: str, root: Path) -> None:
    """Make the files of an image."""
    root.mkdir()
    for command in commands(target, "COPY"):
        if not command.flags:
            copy(command, root)


def make_venv(folder: Path, stage: str, arguments: Mapping[str, str]) -> None:
    """Make the virtual environment folder/venv by a stage's own commands. arguments: as by --build-arg."""
    (folder / "srv").mkdir(parents=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **arguments, "PATH": path, "PIP_COMPILE": "0"}
    for command in commands(stage, "RUN", "COPY")[1:]:  # the first makes a user, which only root can
        if command.cmd == "COPY":
            copy(command, folder / "srv")
            continue
        line = command.value[0].replace("/opt/venv", str(folder / "venv"))
        subprocess.run(line, shell=True, check=True, cwd=folder / "srv", env=environment)


class Machine:
    """Starts services of the compose file as processes. given: the variables of the user's shell or .env."""

    def __init__(self, folder: Path, venv: Path, models: Path) -> None:
        self.folder = folder
        self.port = free_port()
        redis_port = free_port()
        self.redis_arguments = ["--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self.given = {
            **GIVEN,
            "REDIS_URL": f"redis://:{GIVEN['REDIS_PASSWORD']}@127.0.0.1:{redis_port}/0",
            "STRATA_SHARD_ROOTS": json.dumps([str(SHARDS)]),
        }
        self.places = {
            "/opt/venv": venv,
            "/profiles": CHECKOUT / "models" / "profiles",
            "/var/lib/strata/models": models,
            "/var/lib/strata": folder / "data",
        }

    def environment(self, name: str) -> dict[str, str]:
        """The complete environment of a service."""
        set_by_file = interpolated(SERVICES[name].get("environment", {}), self.given)
        variables = environment_of(SERVICES[name]["build"]["target"])
        variables |= {name: str(value) for name, value in set_by_file.items() if value is not None}
        variables = {name: self.here(value) for name, value in variables.items()}
        variables["PATH"] = variables["PATH"].replace("$PATH", os.defpath)
        return {**variables, "HOME": str(self.folder), "STRATA_PORT": str(self.port)}

    def here(self, text: str) -> str:
        """Replace the container's paths in a text by paths of this machine."""
        for path, place in self.places.items():
            text = text.replace(path, str(place))
        return text

    @contextmanager
    def running(self, name: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
        """Run a service in its image's files; yield process and output. SIGTERM must end it in time with code 0."""
        root = self.folder / name
        lay_out(SERVICES[name]["build"]["target"], root)
        command = [self.here(word) for word in interpolated(SERVICES[name]["command"], self.given)]
        process = subprocess.Popen(
            command,
            cwd=root,
            env=self.environment(name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        deadline = threading.Timer(LONGEST, process.kill)  # else a reader of its output would wait forever
        deadline.start()
        try:
            yield process, process.stdout
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                grace = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
                assert process.wait(grace) == 0, process.stdout.read()
        finally:
            deadline.cancel()
            process.kill()
            process.wait()
            process.stdout.close()


def free_port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def wait_for(asked: Any, seconds: float = 120) -> None:
    """Wait until a call returns a true value without an error."""
    until = time.monotonic() + seconds
    while True:
        try:
            if asked():
                return
        except Exception:
            if time.monotonic() > until:
                raise
        assert time.monotonic() < until
        time.sleep(0.1)


def line_with(words: str, output: IO[str]) -> str:
    """The first line that contains the words; all lines if there is none."""
    lines = []
    for line in output:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError("".join(lines))

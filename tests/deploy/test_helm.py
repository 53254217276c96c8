"""The Helm chart, as `helm template` renders it: valid for Kubernetes, and true to Strata's settings and commands."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from strata.cli.main import app
from strata.core import GROUPS, Backlog, GroupBacklog
from strata.core.settings import load_settings

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "strata"
HELM = Path(sys.executable).parent / "helm"
OLDEST, NEWEST = "1.25", "1.33"  # of Kubernetes
SCALED = """
    workers:
      index: {autoscaling: {enabled: true}}
      vision: {autoscaling: {enabled: true, waiting: 2000000}}
      llm: {autoscaling: {enabled: true}}
"""
CASES = {
    "as it is": "{}",
    "buckets": """
        store: {uri: "s3://bucket/strata"}
        redis: {enabled: false, existingSecret: my-redis}
        apiKey: {existingSecret: my-key}
        secretSettings: [aws]
        secretFiles: google
        settings: {STRATA_PROFILE: paper, STRATA_SHARD_ROOTS: "s3://bucket/cc3m", STRATA_MAX_PIXELS: 50000000}
        models: {existingClaim: weights}
    """,
    "ingress": """
        api: {replicas: 2, ingress: {enabled: true, host: strata.example.org, className: nginx, tlsSecret: tls}}
        shards: {existingClaim: cc3m}
        store: {existingClaim: results}
        configMaps: {profiles: my-profiles, prompts: my-prompts}
        image: {registry: registry.example.org/team, tag: v7, pullSecrets: [pull]}
    """,
    "scaled": SCALED,
    "without GPUs": "workers: {vision: {gpus: 0, settings: {STRATA_THREADS: 4}}, llm: {gpus: 0}}",
    "placed": "workers: {vision: {nodeSelector: {gpu: h100}, tolerations: [{key: nvidia.com/gpu, operator: Exists}]}}",
}
WRONG = {
    "Additional property replica is not allowed": "api: {replica: 2}",
    "store.uri": "store: {uri: 's3://key:secret@bucket'}",
    "set redis.url or redis.existingSecret": "redis: {enabled: false}",
    "api.ingress.host is not set": "api: {ingress: {enabled: true}}",
    "workers.vision.gpus": "workers: {vision: {gpus: many}}",
}


def helm(values: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(HELM), "template", "demo", str(CHART), "--namespace", "ml", "--values", "-", *arguments]
    return subprocess.run(command, input=values, capture_output=True, text=True, check=False, timeout=300)


@cache
def rendered(case: str) -> list[dict[str, Any]]:
    """The objects of a case of CASES."""
    done = helm(CASES[case])
    assert not done.returncode, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def pods(case: str) -> dict[str, Any]:
    """The pods' specifications by the names of the objects that make them."""
    made = [one for one in rendered(case) if one["kind"] in ("Deployment", "StatefulSet")]
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in made}


def containers(case: str) -> list[dict[str, Any]]:
    """The containers with Strata."""
    found = [one for pod in pods(case).values() for one in [*pod.get("initContainers", []), *pod["containers"]]]
    return [one for one in found if one["name"] != "valkey"]


def settings(case: str) -> dict[str, str]:
    (found,) = [one["data"] for one in rendered(case) if one["kind"] == "ConfigMap"]
    return dict(found)


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_it(case: str) -> None:
    for one in rendered(case):
        if not one["apiVersion"].startswith("keda.sh/"):
            for version in (OLDEST, NEWEST):
                kubernetes_validate.validate(one, version, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered(case)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", CASES)
def test_strata_takes_its_settings_and_commands(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for container in containers(case):
        for name, value in settings(case).items():
            monkeypatch.setenv(name, value)
        given = {one["name"]: one.get("value", "redis://redis:6379/0") for one in container["env"]}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        # every variable of Strata is one of its settings, and its value is right
        assert {name.removeprefix("STRATA_").lower() for name in {**settings(case), **given} if name != "HOME"} <= {
            *type(load_settings()).model_fields,
            "models",
            "threads",
        }
        python, module, package, *command = container["command"]
        assert (python, module, package) == ("python", "-m", "strata")
        check_command(command)


def check_command(command: list[str]) -> None:
    """That the command line has a command and its options."""
    words = [word for word in command if not word.startswith("--")][: 2 if command[0] == "models" else 1]
    told = CliRunner().invoke(app, [*words, "--help"])
    assert told.exit_code == 0
    assert all(option in told.output for option in command if option.startswith("--"))


def test_an_update_waits_until_a_worker_is_ready() -> None:
    found = {one["name"]: one for one in containers("as it is") if one["name"] in GROUPS}
    assert found.keys() == set(GROUPS)
    for group, container in found.items():
        command = container["readinessProbe"]["exec"]["command"]
        assert command[:3] == ["python", "-m", "strata"] and command[-2:] == ["--groups", group]
        check_command(command[3:])
        assert "livenessProbe" not in container  # one that waits for Redis must not load its models again


def test_secret_files_are_where_a_setting_can_name_them() -> None:
    for container in containers("buckets"):
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts["secrets"] == {"name": "secrets", "mountPath": "/secrets", "readOnly": True}


@pytest.mark.parametrize("case", CASES)
def test_what_it_refers_to_exists(case: str) -> None:
    names = {(one["kind"], one["metadata"]["name"]) for one in rendered(case)}
    foreign = {
        "my-redis",
        "my-key",
        "aws",
        "weights",
        "cc3m",
        "results",
        "my-profiles",
        "my-prompts",
        "tls",
        "pull",
        "google",
    }

    def check(kind: str, name: str) -> None:
        assert name in foreign or (kind, name) in names, (kind, name)

    for pod in pods(case).values():
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for volume in pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                check("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            if "configMap" in volume:
                check("ConfigMap", volume["configMap"]["name"])
            if "secret" in volume:
                check("Secret", volume["secret"]["secretName"])
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= volumes or container["name"] == "valkey"
            for one in container["env"]:
                if "valueFrom" in one:
                    check("Secret", one["valueFrom"]["secretKeyRef"]["name"])
            for source in container.get("envFrom", []):
                for kind, reference in source.items():
                    check({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference["name"])


@pytest.mark.parametrize("case", CASES)
def test_pods_have_few_rights(case: str) -> None:
    for pod in pods(case).values():
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] and rights["capabilities"] == {"drop": ["ALL"]}
            assert not rights["allowPrivilegeEscalation"]


def test_the_key_is_given_to_the_api_only() -> None:
    with_key = [
        one["name"] for one in containers("as it is") if "STRATA_API_KEY" in {item["name"] for item in one["env"]}
    ]
    assert with_key == ["api"]
    assert not any("PASSWORD" in name or "KEY" in name for name in settings("as it is"))


def test_gpus_are_asked_for_by_the_groups_that_have_them() -> None:
    def gpus(case: str) -> dict[str, int]:
        found = {one["name"]: one["resources"]["limits"] for one in containers(case) if one["name"] in GROUPS}
        return {name: limits.get("nvidia.com/gpu", 0) for name, limits in found.items()}

    assert gpus("as it is") == {"index": 0, "vision": 1, "llm": 1}
    assert gpus("without GPUs") == dict.fromkeys(GROUPS, 0)


def test_keda_reads_a_number_that_the_api_gives() -> None:
    scaled = [one for one in rendered("scaled") if one["kind"] == "ScaledObject"]
    backlog = Backlog(jobs=1, groups=dict.fromkeys(GROUPS, GroupBacklog()), workers={}).model_dump()
    names = {(one["kind"], one["metadata"]["name"]) for one in rendered("scaled")}
    for one in scaled:
        assert ("Deployment", one["spec"]["scaleTargetRef"]["name"]) in names
        (trigger,) = one["spec"]["triggers"]
        assert ("TriggerAuthentication", trigger["authenticationRef"]["name"]) in names
        value: Any = backlog
        for part in trigger["metadata"]["valueLocation"].split("."):
            value = value[part]
        assert value == 0 and trigger["metadata"]["url"].endswith("/v1/backlog")
        # the service answers to the name by which KEDA calls it
        host = trigger["metadata"]["url"].split("//")[1].split(":")[0]
        assert host in settings("scaled")["STRATA_ALLOWED_HOSTS"].split(",")
        assert trigger["metadata"]["targetValue"].isdigit()
        # the number of pods is the autoscaler's alone
        same = [two for two in rendered("scaled") if two["metadata"]["name"] == one["metadata"]["name"]]
        assert ["replicas" in two["spec"] for two in same if two["kind"] == "Deployment"] == [False]
    assert len(scaled) == len(GROUPS)


@pytest.mark.parametrize("reason", WRONG)
def test_wrong_values_are_refused_with_the_reason(reason: str) -> None:
    done = helm(WRONG[reason])
    assert done.returncode and reason in done.stderr

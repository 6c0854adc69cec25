"""What deploy/ ships for clusters and hosts: manifests that Kubernetes takes, a unit that systemd reads, an installer
that puts a release beside the one that runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.runtime.bootstrap import SPECS, load_settings, registry_of
from agents.runtime.bus.cluster_models import CLUSTER_FILE, ClusterModels, HostModel
from agents.runtime.health import ProcessHealth
from agents.settings import settings_of
from tests.support.patience import patient

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUBERNETES, SYSTEMD = DEPLOY / "kubernetes", DEPLOY / "systemd"
WAYS = ("base", "overlays/postgres", "overlays/large")
CLUSTER = "overlays/cluster"
NOT_OURS = {"PGPASSWORD", "PYTHONDONTWRITEBYTECODE"}
KUBECTL = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def ran(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=patient(60), env={**os.environ, **environment}
    )


def rendered(way: str) -> list[dict[str, Any]]:
    done = ran("kubectl", "kustomize", str(KUBERNETES / way))
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(documents: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """The document of a kind, of this name where there are several."""
    (found,) = [each for each in documents if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    return found


def narrow(container: dict[str, Any]) -> None:
    """It has no more rights than it needs, and a limit."""
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"] and rights["capabilities"]["drop"] == ["ALL"]
    assert not rights["allowPrivilegeEscalation"] and "memory" in container["resources"]["limits"]
    assert "livenessProbe" in container


@KUBECTL
@pytest.mark.integration
@pytest.mark.parametrize("way", (*WAYS, CLUSTER))
def test_kubernetes_takes_each_manifest(way: str) -> None:
    checker = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in rendered(way):
        checker.validate(document, "1.33", strict=True)
        with pytest.raises(checker.ValidationError):
            checker.validate(document | {"metadata": "of nothing"}, "1.33", strict=True)


@KUBECTL
@pytest.mark.integration
@pytest.mark.parametrize("way", WAYS)
def test_a_pod_has_settings_that_exist_and_no_more_rights_than_it_needs(way: str) -> None:
    documents = rendered(way)
    known = {name.upper() for name in settings_of(SPECS).model_fields} | NOT_OURS
    given = set(one(documents, "ConfigMap")["data"])
    pod = one(documents, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    names = {each["name"] for each in pod["containers"]}
    assert names == {"listener", "api", "scheduler"}
    for each in pod["containers"]:
        given |= {variable["name"] for variable in each["env"]}
        narrow(each)
        assert each["livenessProbe"]["exec"]["command"] == ["dns-tunnel", "health", each["name"]]
    listener = next(each for each in pod["containers"] if each["name"] == "listener")
    assert "dns-tunnel-secrets" not in json.dumps(listener["envFrom"]), "who answers strangers has no channel's secrets"
    assert given - known == set()


@KUBECTL
@pytest.mark.integration
def test_a_cluster_judges_behind_a_bus_that_its_own_pods_alone_reach_and_grows_with_its_lag(tmp_path: Path) -> None:
    documents = rendered(CLUSTER)
    known = {name.upper() for name in settings_of(SPECS).model_fields} | NOT_OURS
    settings = one(documents, "ConfigMap")["data"]
    heard, workers, bus = (
        one(documents, "StatefulSet", name)["spec"]
        for name in ("dns-tunnel", "dns-tunnel-detectors", "dns-tunnel-nats")
    )
    pods = [each["template"] for each in (heard, workers, bus)]
    for pod in pods:
        assert pod["spec"]["securityContext"]["runAsNonRoot"] and not pod["spec"]["automountServiceAccountToken"]
        for each in pod["spec"]["containers"]:
            narrow(each)
    given = {variable["name"] for each in workers["template"]["spec"]["containers"] for variable in each["env"]}
    assert (given | set(settings)) - known == set()
    (detector,) = workers["template"]["spec"]["containers"]
    images = {each["image"] for pod in pods[:2] for each in pod["spec"]["containers"]}
    assert images == {"dns-tunnel-detector:latest"}
    assert detector["args"] == ["detect"] and {"secretRef": {"name": "dns-tunnel-database"}} in detector["envFrom"]

    server = one(documents, "Service", "dns-tunnel-nats")
    assert settings["STREAM"] == f"nats://{server['metadata']['name']}:4222"
    assert int(settings["STREAM_REPLICAS"]) == bus["replicas"] == 3
    assert server["spec"]["selector"].items() <= pods[2]["metadata"]["labels"].items()
    policy = one(documents, "NetworkPolicy", "dns-tunnel-nats")["spec"]["ingress"]
    (may,) = [each["from"] for each in policy if each["ports"][0]["port"] == "client"]
    (labels,) = [each["podSelector"]["matchLabels"] for each in may]
    assert [labels.items() <= pod["metadata"]["labels"].items() for pod in pods] == [True, True, False]

    grows = one(documents, "HorizontalPodAutoscaler")["spec"]
    assert grows["scaleTargetRef"]["name"] == "dns-tunnel-detectors" and "replicas" not in workers
    (tmp_path / CLUSTER_FILE).write_text(
        ClusterModels(
            hosts={name: HostModel(model_id="m", since=0, at=0, slots=1, lag=7) for name in "ab"}, at=time.time()
        ).model_dump_json()
    )
    health = ProcessHealth(tmp_path, registry_of(load_settings(data_dir=tmp_path)))
    told = {f"dns_tunnel_{each.name}": each.value for each in health.metrics()}
    assert [told[each["external"]["metric"]["name"]] for each in grows["metrics"]] == [14]
    conf = [each.removeprefix("--") for each in bus["template"]["spec"]["containers"][0]["args"]]
    assert len(next(each for each in conf if each.startswith("routes=")).split(",")) == bus["replicas"]


@KUBECTL
@pytest.mark.integration
def test_a_services_clients_keep_their_addresses_and_find_the_pod() -> None:
    documents = rendered("base")
    pod = one(documents, "StatefulSet")["spec"]["template"]
    ports = {port["name"] for each in pod["spec"]["containers"] for port in each.get("ports", [])}
    services = [each for each in documents if each["kind"] == "Service"]
    for each in services:
        assert each["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
    outside = [each for each in services if each["spec"].get("type") == "LoadBalancer"]
    assert [each["spec"]["externalTrafficPolicy"] for each in outside] == ["Local"]


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "dns-tunnel"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = re.sub(r"ExecStart=\S+", f"ExecStart={program}", (SYSTEMD / "dns-tunnel.service").read_text())
    for broken in ("", "Restrat=always\n"):
        unit = tmp_path / "dns-tunnel.service"
        unit.write_text(text.replace("Restart=always\n", broken or "Restart=always\n"))
        done = ran("systemd-analyze", "verify", "--man=no", str(unit))
        said = [line for line in done.stderr.splitlines() if "dns-tunnel.service" in line]
        assert bool(said) is bool(broken), done.stderr


def installed(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ran("sh", str(SYSTEMD / "install.sh"), *arguments, ROOT=str(root))


@pytest.mark.slow
def test_a_release_is_put_beside_the_one_before_and_settings_stay(tmp_path: Path) -> None:
    current, settings = tmp_path / "opt/dns-tunnel/current", tmp_path / "etc/dns-tunnel/env"
    assert installed(tmp_path).returncode == 0
    assert settings.stat().st_mode & 0o077 == 0, "secrets are written there"
    settings.write_text("UPSTREAMS=127.0.0.1:9\n")
    first = current.resolve()
    first = first.rename(first.with_name("20200101-000000"))
    current.unlink()
    current.symlink_to(first.name)
    assert installed(tmp_path).returncode == 0
    second = current.resolve()
    assert second != first and first.is_dir() and settings.read_text() == "UPSTREAMS=127.0.0.1:9\n"
    for name in ("agents/__main__.py", "Makefile", "requirements.txt", "pyproject.toml", ".env.example"):
        assert (current / name).is_file(), name
    assert not list(current.rglob("__pycache__"))
    assert installed(tmp_path, "--back").returncode == 0 and current.resolve() == first
    unit = (tmp_path / "etc/systemd/system/dns-tunnel.service").read_text()
    assert "ExecStart=/opt/dns-tunnel/current/.venv/bin/dns-tunnel run" in unit


def test_what_cannot_be_installed_is_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for arguments, python, why in (
        (("--back",), "python3", "nothing is installed"),
        (("--dance",), "python3", "what is --dance?"),
        ((), str(old), "Python 3.11 or later is needed"),
    ):
        done = ran("sh", str(SYSTEMD / "install.sh"), *arguments, ROOT=str(tmp_path / "root"), PYTHON=python)
        assert done.returncode == 1 and done.stderr.startswith("cannot install: ") and why in done.stderr
        assert done.stderr.count("\n") == 1 and not (tmp_path / "root").exists()

"""What docs/deploy says, against the programs and the models that it is for. No cluster and no Docker run here."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from facemix.cloud.settings import Settings
from facemix.commands import export, serve

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
MIB = 1024 * 1024
EDGE_MESSAGE_BYTES = 2_000_000
PROCESS_BYTES = 1024 * MIB  # Python, PyTorch, KServe


def checked(manifest: Path) -> subprocess.CompletedProcess[str]:
    program = ROOT / "tests" / "helpers" / "inference_service.py"
    return subprocess.run([sys.executable, program, manifest], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def predictor() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "kserve.yaml").read_text())["spec"]["predictor"]


@pytest.fixture(scope="module")
def container(predictor: dict[str, Any]) -> dict[str, Any]:
    (only,) = predictor["containers"]
    return only


@pytest.fixture(scope="module")
def arguments(container: dict[str, Any]) -> argparse.Namespace:
    """What `facemix serve` makes of the container's arguments."""
    parser = argparse.ArgumentParser()
    serve.add(parser.add_subparsers())
    return parser.parse_args(container["args"])


@pytest.fixture(scope="module")
def settings(arguments: argparse.Namespace) -> Settings:
    chosen = {name: value for name, value in vars(arguments).items() if name in Settings.__dataclass_fields__}
    return Settings(**{**chosen, "model": tuple(arguments.model)})


def test_kserve_and_kubernetes_have_all_its_fields(tmp_path: Path) -> None:
    good = checked(DEPLOY / "kserve.yaml")
    assert (good.returncode, good.stdout) == (0, "concurrency\n"), good.stderr
    bad = tmp_path / "bad.yaml"
    bad.write_text((DEPLOY / "kserve.yaml").read_text().replace("periodSeconds", "periodSecond"))
    assert "V1Probe must not have {'periodSecond'}" in checked(bad).stderr


def test_it_scales_with_concurrency(predictor: dict[str, Any], settings: Settings) -> None:
    assert predictor["scaleMetric"] == "concurrency"
    assert 1 <= predictor["minReplicas"] < predictor["maxReplicas"]
    # Calls that Knative lets through find room: they are not refused for their number.
    assert predictor["scaleTarget"] <= predictor["containerConcurrency"] <= settings.max_receiving


def test_ports_and_paths_agree(
    container: dict[str, Any], predictor: dict[str, Any], arguments: argparse.Namespace, settings: Settings
) -> None:
    assert arguments.engine == "kserve"
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("h2c", settings.port)
    assert container["readinessProbe"]["grpc"]["port"] == settings.port
    annotations = yaml.safe_load((DEPLOY / "kserve.yaml").read_text())["metadata"]["annotations"]
    assert annotations["prometheus.kserve.io/port"] == str(settings.metrics_port)
    assert (settings.host, settings.metrics_host, settings.insecure) == ("0.0.0.0", "0.0.0.0", True)
    assert settings.model == (Path("/mnt/models"),)  # where KServe puts what STORAGE_URI names
    assert [variable["name"] for variable in container["env"]] == ["STORAGE_URI"]
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in predictor["volumes"]]


def test_limits_agree(container: dict[str, Any], predictor: dict[str, Any], settings: Settings) -> None:
    assert settings.max_message_bytes >= EDGE_MESSAGE_BYTES
    assert settings.drain_seconds < predictor["timeout"]
    limits = container["resources"]["limits"]
    assert int(limits["cpu"]) == settings.threads
    memory = int(limits["memory"].removesuffix("Gi")) * 1024 * MIB
    messages = settings.max_receiving * settings.max_message_bytes
    assert memory >= settings.queue_bytes + messages + PROCESS_BYTES


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text()


def test_the_image_runs_as_nobody_in_particular(container: dict[str, Any]) -> None:
    security = container["securityContext"]
    assert security["runAsNonRoot"]
    assert re.search(r"^USER (\d+):", dockerfile(), re.MULTILINE)[1] == str(security["runAsUser"])
    assert "ARG" not in dockerfile()  # nor a secret among its build arguments


def test_the_image_has_the_packages_of_pyproject() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    known = {requirement for extra in extras.values() for requirement in extra} | {"numpy>=2.0"}
    installed = re.findall(r"^ +'([^']+)'", dockerfile(), re.MULTILINE)
    assert len(installed) > 5
    assert not set(installed) - known


def test_what_the_image_copies_is_enough_and_has_no_edge(tmp_path: Path) -> None:
    ignore, allow, *left_out, cache = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert (ignore, allow, cache) == ("*", "!python/facemix", "**/__pycache__")
    assert "python/facemix/edge" in left_out
    copy = tmp_path / "facemix"
    shutil.copytree(ROOT / "python" / "facemix", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in left_out:
        shutil.rmtree(copy / Path(path).relative_to("python/facemix"))
    code = (
        "import sys; sys.modules['facemix_ops'] = None\n"  # importing it is an error
        "import facemix.cli, facemix.cloud.kserve, facemix.cloud.model, facemix.cloud.server\n"
        "print(facemix.__file__)\n"
        "facemix.cli.main(['serve', '--help'])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith(f"{copy}/__init__.py\nusage: "), result.stderr


@pytest.mark.parametrize("page", ["README.md", "triton.md"])
def test_the_commands_of_a_page_are_understood(page: str) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    for command in (export, serve):
        command.add(commands)
    lines = re.findall(r"^facemix (.+)$", (DEPLOY / page).read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        parser.parse_args(shlex.split(line))

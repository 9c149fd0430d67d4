"""The compose files agree with the files that they mount and the names that they use. Needs no container engine."""

import re
import shutil
import subprocess

import pytest
import yaml
from harness import BINARY, ROOT

DEPLOY = ROOT / "deploy"
CORE = yaml.safe_load((DEPLOY / "core.compose.yaml").read_text())
PROFILING = yaml.safe_load((DEPLOY / "profiling.compose.yaml").read_text())


def test_names_used_by_other_projects_stay():
    service = PROFILING["services"]["pyroscope"]
    assert service["container_name"] == "oib-pyroscope"
    assert service["ports"] == ["127.0.0.1:${PYROSCOPE_PORT:-4040}:4040"]
    assert "${PYROSCOPE_VERSION" in service["image"]
    assert CORE["networks"]["oib-network"]["name"] == PROFILING["networks"]["oib-network"]["name"] == "oib-network"
    assert PROFILING["networks"]["oib-network"]["external"] is True


def test_mounted_and_built_files_exist():
    for name, service in {**CORE["services"], **PROFILING["services"]}.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), f"{name} mounts {source}"
    for path in re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M):
        for source in path.split():
            assert (ROOT / source).exists(), f"Dockerfile copies {source}"


def test_every_variable_has_a_default():
    named = dict(line.split("=") for line in (DEPLOY / ".env").read_text().splitlines() if line and line[0] != "#")
    for text in ((DEPLOY / "core.compose.yaml").read_text(), (DEPLOY / "profiling.compose.yaml").read_text()):
        for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", text):
            assert named[name] == default


def test_the_data_sources_point_at_each_other():
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/pyrograph.yaml").read_text())["datasources"]
    by_type = {source["type"]: source for source in sources}
    pyrograph = by_type["grafana-pyroscope-datasource"]
    assert pyrograph["url"] == "http://oib-pyroscope:4040"
    assert by_type["tempo"]["jsonData"]["tracesToProfiles"]["datasourceUid"] == pyrograph["uid"]


def test_the_server_accepts_the_flags_of_the_container(tmp_path):
    flags = [flag for flag in PROFILING["services"]["pyroscope"]["command"] if "config.file" not in flag]
    run = subprocess.run(
        [BINARY, "server", *flags, f"-config.file={ROOT}/config/single-node.yaml", "-target=none"],
        capture_output=True, text=True, timeout=20, cwd=tmp_path,
    )
    assert "target" in run.stderr and "none" in run.stderr, "everything but the target is accepted: " + run.stderr


@pytest.mark.skipif(
    not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="no docker compose to check the files with",
)
@pytest.mark.parametrize("file", ["core.compose.yaml", "profiling.compose.yaml"])
def test_compose_accepts_the_files(file):
    run = subprocess.run(
        ["docker", "compose", "--env-file", DEPLOY / ".env", "-f", DEPLOY / file, "config", "-q"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr

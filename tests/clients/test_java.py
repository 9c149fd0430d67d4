"""Java, unchanged: the Pyroscope agent pushes JFR, and a recording of the JDK is pushed with one request."""

import os
import pathlib
import shutil
import subprocess

import pytest
from harness import CPU
from test_sdks import label_values, shares

AGENT = "io.pyroscope:agent:2.9.2"
ALLOCATED = "memory:alloc_in_new_tlab_bytes:bytes:space:bytes"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The class path of the compiled demo, and the agent in it."""
    if not shutil.which("javac") or not shutil.which("mvn"):
        pytest.skip("no JDK, or no Maven to fetch the agent with")
    folder = tmp_path_factory.mktemp("java")
    fetch = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={AGENT}", f"-DoutputDirectory={folder}"]
    if subprocess.run(fetch, capture_output=True, timeout=300).returncode:
        pytest.skip(f"{AGENT} cannot be fetched")
    agent = next(folder.glob("agent-*.jar"))
    source = pathlib.Path(__file__).parent / "java/Demo.java"
    subprocess.run(["javac", "-cp", agent, "-d", folder, source], check=True, timeout=120)
    return f"{agent}:{folder}", agent


def test_the_agent(server, demo):
    class_path, agent = demo
    settings = {
        "PYROSCOPE_SERVER_ADDRESS": server.url,
        "PYROSCOPE_APPLICATION_NAME": "sdk-java",
        "PYROSCOPE_FORMAT": "jfr",
        "PYROSCOPE_PROFILER_EVENT": "itimer",
        "PYROSCOPE_PROFILER_ALLOC": "256k",
        "PYROSCOPE_UPLOAD_INTERVAL": "3s",
        "PYROSCOPE_LABELS": "region=eu-demo",
    }
    java = ["java", f"-javaagent:{agent}", "-cp", class_path, "Demo", "14", "labels"]
    subprocess.run(java, check=True, timeout=90, env={**os.environ, **settings})
    ratio, total = shares(server, "sdk-java", "Demo.parseOrders", "Demo.renderReport")
    assert total > 2e9, "fewer than two CPU seconds arrived"
    assert 2 < ratio < 4.5, f"parseOrders costs three times renderReport, measured {ratio:.2f} times"
    selector = '{service_name="sdk-java"}'
    assert label_values(server, "endpoint", selector) >= {"/orders", "/report"}
    assert label_values(server, "region", selector) == {"eu-demo"}
    assert label_values(server, "jfr_event", selector) == {"itimer"}
    allocated = server.flamegraph(selector, ALLOCATED)
    assert any(path and path[-1] == "Demo.parseOrders" and own > 0 for path, (_, own) in allocated.items())


def test_a_recording_of_the_jdk(server, demo, tmp_path):
    class_path, _ = demo
    recording = tmp_path / "demo.jfr"
    start = f"-XX:StartFlightRecording=filename={recording},settings=profile"
    subprocess.run(["java", start, "-cp", class_path, "Demo", "6"], check=True, timeout=90, capture_output=True)
    status, body = server.post("/ingest?name=jdk&from=now-6s&until=now&format=jfr", recording.read_bytes())
    assert status == 200, body
    ratio, total = shares(server, "jdk", "Demo.parseOrders", "Demo.renderReport")
    assert total > 1e9, "less than a second of CPU arrived"
    assert 2 < ratio < 4.5, f"parseOrders costs three times renderReport, measured {ratio:.2f} times"
    assert server.total('{service_name="jdk"}', "memory:alloc_sample_bytes:bytes:space:bytes") > 0
    assert server.total('{service_name="jdk"}', CPU) == total

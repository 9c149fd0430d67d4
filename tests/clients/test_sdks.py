"""The published SDKs, unchanged: two functions of known cost are found by name with their share and their tags."""

import shutil
import subprocess
import sys

import pytest
from harness import CPU, ROOT, now_millis

DEMO = ROOT / "deploy/demo"


def shares(server, service, first, second):
    graph = server.flamegraph(f'{{service_name="{service}"}}')

    def own(function):
        # A function called from several places counts at its first occurrence on a path.
        return sum(t for path, (t, _) in graph.items() if path and function in path[-1] and not any(function in p for p in path[:-1]))

    return own(first) / max(own(second), 1), graph[()][0]


def label_values(server, name, selector):
    answer = server.rpc(
        "querier.v1.QuerierService/LabelValues",
        name=name, matchers=[selector], start=now_millis() - 600_000, end=now_millis() + 60_000,
    )
    return set(answer.get("names", []))


def test_python(server):
    subprocess.run([sys.executable, DEMO / "app.py", server.url, "14", "sdk-python"], check=True, timeout=90)
    ratio, total = shares(server, "sdk-python", "parse_orders", "render_report")
    assert total > 2e9, "fewer than two CPU seconds arrived"
    assert 2 < ratio < 4.5, f"parse_orders costs three times render_report, measured {ratio:.2f} times"
    assert label_values(server, "endpoint", '{service_name="sdk-python"}') >= {"/orders", "/report"}
    assert label_values(server, "region", '{service_name="sdk-python"}') == {"eu-demo"}


@pytest.mark.skipif(not shutil.which("go"), reason="go is not installed")
def test_go(server, tmp_path):
    program = tmp_path / "demo"
    subprocess.run(["go", "build", "-o", program, "."], cwd=DEMO / "go", check=True, timeout=300)
    subprocess.run([program, server.url, "12", "sdk-go"], check=True, timeout=90)
    ratio, total = shares(server, "sdk-go", "main.parseOrders", "main.renderReport")
    assert total > 2e9, "fewer than two CPU seconds arrived"
    assert 2 < ratio < 4.5, f"parseOrders costs three times renderReport, measured {ratio:.2f} times"
    assert label_values(server, "endpoint", '{service_name="sdk-go"}') >= {"/orders", "/report"}
    # Profile types as a user types them into render, the page and the command line.
    for profile_type in (CPU, "memory:alloc_objects:count:space:bytes", "memory:inuse_space:bytes:space:bytes"):
        assert server.total('{service_name="sdk-go"}', profile_type) > 0, profile_type
    assert server.total('{service_name="sdk-go"}', "nothing:has:this:type:ever") == 0

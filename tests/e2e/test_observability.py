"""Alerts and dashboards name metrics that a running server exports; every alert has a runbook that can be followed."""

import json
import re
import socket
import subprocess
import sys
import time

import promql_parser
import yaml
from harness import ROOT, free_port, pprof, push

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARDS = ROOT / "deploy/grafana/dashboards"
PROMTOOL = ROOT / "tests/.cache/bin/promtool"
# Metrics that are exported only after their first event; their names must be in the sources.
RARE = {
    "pyrograph_ingester_abandoned_logs_total",
    "pyrograph_ingester_refusals_total",
    "pyrograph_storage_denied",
    "pyrograph_storage_hedges_total",
    "pyrograph_storage_retries_total",
}


def alerts():
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions():
    """(place, PromQL) of every alert and panel."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.name}: {panel['title']}", target["expr"].replace("$__rate_interval", "1m")


def selectors(expression):
    """(metric, names of matched labels) of every selector in the expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name, {matcher.name for matcher in expression.matchers.matchers}
        return
    for name in ("expr", "lhs", "rhs", "vector_selector", "args"):
        child = getattr(expression, name, None)
        for each in child if isinstance(child, list) else [child] if child is not None else []:
            yield from selectors(each)


def exported(server):
    """{name of a metric: names of its labels}."""
    status, text = server.get("/metrics")
    assert status == 200
    found = {}
    for line in text.decode().splitlines():
        if match := re.match(r"([a-z_:0-9]+)(?:\{(.*)\})? ", line):
            found.setdefault(match[1], set()).update(re.findall(r'(\w+)="', match[2] or ""))
    return found


def test_every_metric_that_an_alert_or_dashboard_names_is_exported(new_server, tmp_path):
    # A cluster of one process on a local disk has the metrics of a large cluster.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gossip:
        gossip.bind(("127.0.0.1", 0))
        port = gossip.getsockname()[1]
    server = new_server(
        "-metastore.merge-after=1s",
        f"-querier.disk-cache-dir={tmp_path / 'cache'}",
        "-memberlist.bind-addr=127.0.0.1",
        f"-memberlist.bind-port={port}",
        f"-memberlist.join=127.0.0.1:{port}",
        "-server.grpc-listen-address=127.0.0.1",
        f"-server.grpc-listen-port={free_port()}",
    )
    assert push(server, {"service_name": "app"}, pprof({("f", "main"): 1}))[0] == 200
    assert push(server, {"service_name": "app"}, b"no profile")[0] == 400
    server.total('{service_name="app"}')
    used = [(where, *selector) for where, text in expressions() for selector in selectors(promql_parser.parse(text))]
    assert len(used) > 100
    until = time.monotonic() + 30
    while True:
        series = exported(server)
        there = lambda name, labels: name in series and labels <= series[name]  # noqa: E731
        missing = {(w, name) for w, name, labels in used if name not in RARE and not there(name, labels)}
        if not missing:
            break
        assert time.monotonic() < until, missing
        time.sleep(0.5)
    sources = "".join(f.read_text() for f in ROOT.glob("*/*/src/metrics.rs"))
    assert all(f'"{name.removesuffix("_total")}"' in sources for name in RARE)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.M))
    assert sections == {rule["alert"] for rule in alerts()}
    for rule in alerts():
        assert rule["annotations"]["runbook_url"].endswith(f"docs/runbooks.md#{rule['alert'].lower()}")
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"]


def test_the_settings_in_the_runbooks_exist():
    text, reference = (ROOT / "docs/runbooks.md").read_text(), yaml.safe_load((ROOT / "config/reference.yaml").read_text())
    for path in re.findall(r"`((?:limits|ingester|metastore|querier|server|compactor|distributor)\.[a-z_]+)`", text):
        section, key = path.split(".")
        assert key in reference[section], path


def test_prometheus_accepts_the_alerts_and_they_fire_when_they_should(tmp_path):
    run = subprocess.run([PROMTOOL, "check", "rules", ALERTS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    run = subprocess.run([PROMTOOL, "test", "rules", ROOT / "tests/e2e/alerts_test.yaml"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_metrics_have_the_format_that_the_client_reads(server):
    status, text = server.get("/metrics", {"Accept": "text/plain;version=0.0.4"})
    assert status == 200
    run = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True)
    assert (run.returncode, run.stderr) == (0, b"")
    status, text = server.get("/metrics", {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert status == 200 and text.endswith(b"# EOF\n")


def test_the_dashboards_match_their_source():
    run = subprocess.run([sys.executable, ROOT / "deploy/grafana/dashboards.py", "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for file in DASHBOARDS.glob("*.json"):
        dashboard = json.loads(file.read_text())
        places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
        assert dashboard["uid"] == file.stem and len(places) == len(set(places))

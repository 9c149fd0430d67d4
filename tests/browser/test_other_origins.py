"""A page of another origin, in a real browser, tries every route that changes state."""

import base64
import http.server
import json
import re
import shutil
import subprocess
import threading
import time

import pytest
from harness import pprof, push

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")

EVERYTHING = {"selector": '{service_name="shop"}', "start": 0, "end": 4_000_000_000_000}
PUSHED = {
    "series": [
        {
            "labels": [{"name": "__name__", "value": "process_cpu"}, {"name": "service_name", "value": "intruder"}],
            "samples": [{"rawProfile": base64.b64encode(pprof({("main",): 7})).decode()}],
        }
    ]
}
# For each path a query and a body that have an effect if they get through. A form of plain text sends `name=value`, so each
# body contains `=` (in JSON: in a selector, or in base64).
ATTACKS = {
    "/api/v1/delete": ("", json.dumps(EVERYTHING)),
    "/ingest": ("?name=intruder.cpu", "main;a=b 7\n"),
    "/pyroscope/ingest": ("?name=intruder.cpu", "main;a=b 7\n"),
    "/push.v1.PusherService/Push": ("", json.dumps(PUSHED)),
}

PAGE = """<!doctype html><body><script>
const attacks = ATTACKS, results = {};
const frame = (attributes) => document.body.appendChild(Object.assign(document.createElement('iframe'), attributes));
const loaded = (element, act) => new Promise((done) => { element.onload = done; act(); setTimeout(done, 5000); });
async function tried(name, attempt) {
  try { results[name] = String(await attempt()); } catch (error) { results[name] = 'threw ' + error.name; }
}
async function form(url, body, enctype) {
  const target = 'frame' + Math.random();
  const at = body.indexOf('=');
  const sent = Object.assign(document.createElement('form'), { action: url, method: 'POST', enctype, target });
  sent.append(Object.assign(document.createElement('input'), { name: body.slice(0, at), value: body.slice(at + 1).trim() }));
  document.body.append(sent);
  const element = frame({ name: target });
  await loaded(element, () => sent.submit());
}
(async () => {
  for (const { url, body } of attacks) {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x'])
      for (const mode of ['no-cors', 'cors'])
        await tried(`${url} ${mode} ${type}`, async () =>
          (await fetch(url, { method: 'POST', mode, body, headers: { 'content-type': type } })).status);
    for (const type of ['application/json', 'application/octet-stream'])
      await tried(`${url} preflight ${type}`, async () =>
        (await fetch(url, { method: 'POST', body, headers: { 'content-type': type } })).status);
    await tried(`${url} bare`, async () => (await fetch(url, { method: 'POST', mode: 'no-cors', body: new Blob([body]) })).status);
    for (const type of ['text/plain', 'application/json'])
      await tried(`${url} beacon ${type}`, () => navigator.sendBeacon(url, new Blob([body], { type })));
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data'])
      await tried(`${url} form ${type}`, () => form(url, body, type));
    await tried(`${url} null origin`, () => new Promise((done) => {
      onmessage = (event) => done(event.data);
      setTimeout(() => done('silent'), 5000);
      const script = `fetch(${JSON.stringify(url)}, {method: 'POST', mode: 'no-cors', body: ${JSON.stringify(body)}})` +
        `.then(() => 'sent', String).then((text) => parent.postMessage(text, '*'))`;
      frame({ sandbox: 'allow-scripts', srcdoc: '<script>' + script + '<' + '/script>' });
    }));
  }
  await new Promise((done) => setTimeout(done, 500));
  await fetch('/done', { method: 'POST', body: JSON.stringify(results) });
})();
</script>"""


class OtherSite(http.server.ThreadingHTTPServer):
    """Serves one page, and waits for its report."""

    def __init__(self):
        site = self
        self.page, self.results, self.reported = "", None, threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(site.page.encode())

            def do_POST(self):
                site.results = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()
                site.reported.set()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def chromium(tmp_path, url, *arguments):
    return [
        "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'browser'}", *arguments, url,
    ]


def visit(tmp_path, site, url):
    """Opens the page; returns its report."""
    browser = subprocess.Popen(
        chromium(tmp_path, url, "--remote-debugging-port=0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert site.reported.wait(120), "the page did not finish"
        return site.results
    finally:
        browser.terminate()
        browser.wait(timeout=30)


def changing_routes(server):
    """Paths of changing routes, from the route table that the server logs at its start."""
    found = re.findall(r'route method=(\S+) path="([^"]+)" effect="(\w+)"', re.sub(r"\x1b\[[\d;]*m", "", server.log()))
    assert len(found) > 20, "the log names no routes"
    assert all(method == "POST" for method, _, effect in found if effect != "read")
    return {path for _, path, effect in found if effect != "read"}


def page(server):
    routes = changing_routes(server)
    assert routes == set(ATTACKS), "each route that changes state needs an attack in this test"
    attacks = [{"url": server.url + path + query, "body": body} for path, (query, body) in sorted(ATTACKS.items())]
    return PAGE.replace("ATTACKS", json.dumps(attacks))


def state(server):
    services = server.rpc("querier.v1.QuerierService/LabelValues", name="service_name", start=1000, end=time.time_ns() // 10**6 + 60_000)
    orders = json.loads(server.get("/api/v1/delete")[1])["orders"]
    return sorted(services.get("names", [])), len(orders), server.total('{service_name="shop"}')


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_page_of_another_origin_changes_nothing(new_server, tmp_path, host):
    server = new_server("-self-profiling.disable-push", "-log.level=debug")
    assert push(server, {"service_name": "shop"}, pprof({("main",): 30}))[0] == 200
    before = state(server)
    site = OtherSite()
    site.page = page(server)
    results = visit(tmp_path, site, f"http://{host}:{site.server_port}/")
    assert len(results) == 15 * len(ATTACKS)
    # Requests without a preflight arrive, but the page cannot read an answer.
    fetched = {name: text for name, text in results.items() if not re.search("beacon|form |null origin", name)}
    assert all(text == "threw TypeError" for text in fetched.values()), results
    assert server.log().count("status=403") > 6 * len(ATTACKS)
    assert state(server) == before == (["shop"], 0, 30)


def test_the_same_page_changes_everything_where_its_origin_is_allowed(new_server, tmp_path):
    site = OtherSite()
    origin = f"http://localhost:{site.server_port}"
    server = new_server("-self-profiling.disable-push", "-log.level=debug", f"-server.cors-allowed-origins={origin}")
    assert push(server, {"service_name": "shop"}, pprof({("main",): 30}))[0] == 200
    site.page = page(server)
    results = visit(tmp_path, site, origin + "/")
    for path, (query, _) in ATTACKS.items():
        content_type = "application/octet-stream" if "ingest" in path else "application/json"
        assert results[f"{server.url}{path}{query} preflight {content_type}"] == "200", results
    services, orders, left = state(server)
    assert services == ["intruder"] and orders > 0 and left == 0


def test_a_rebound_host_name_reads_nothing(server, tmp_path):
    port = server.port
    seen = {}
    for host in ["rebound.example", "localhost"]:
        run = subprocess.run(
            chromium(tmp_path, f"http://{host}:{port}/api/apps", "--host-resolver-rules=MAP rebound.example 127.0.0.1", "--dump-dom"),
            capture_output=True, text=True, timeout=120,
        )
        seen[host] = run.stdout
    assert "-server.allowed-hosts" in seen["rebound.example"], seen
    assert "[]" in seen["localhost"], seen

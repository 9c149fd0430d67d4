"""The rendered chart: Kubernetes' own schemas accept it, and the server accepts its flags. Needs no cluster."""

import re
import subprocess

import kubernetes_validate
import pytest
import yaml
from harness import BINARY, ROOT

HELM = ROOT / "tests/.cache/bin/helm"
CHART = ROOT / "helm/pyrograph"
DISTRIBUTED = "values-distributed.yaml"
CASES = {
    "a try": [],
    "several processes on S3": ["ci/single-s3-values.yaml"],
    "a process per role": [DISTRIBUTED],
    "everything": [DISTRIBUTED, "ci/everything-values.yaml"],
}
ROLES = {"distributor", "ingester", "metastore", "compactor", "querier"}
# Kinds without a schema in Kubernetes: the required paths.
CUSTOM = {
    "ServiceMonitor": ["spec.selector.matchLabels", "spec.endpoints.0.port"],
    "PrometheusRule": ["spec.groups"],
    "HTTPRoute": ["spec.parentRefs.0.name", "spec.rules.0.backendRefs.0.port"],
}


def helm(*arguments):
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60)


def render(files, *settings):
    values = [f"--values={CHART / file}" for file in files]
    run = helm("template", "p", CHART, "--namespace=n", "--kube-version=1.35.0", *values, *settings)
    assert run.returncode == 0, run.stderr
    return [document for document in yaml.safe_load_all(run.stdout) if document]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def documents(request):
    return render(CASES[request.param])


def pod_specs(documents):
    yield from ((d["metadata"]["name"], d["spec"]["template"]["spec"]) for d in of_kind(documents, "Deployment"))
    yield from ((d["metadata"]["name"], d["spec"]) for d in of_kind(documents, "Pod"))


@pytest.mark.parametrize("files", CASES.values(), ids=[name.replace(" ", "-") for name in CASES])
def test_helm_lint_passes(files):
    run = helm("lint", CHART, "--strict", *[f"--values={CHART / file}" for file in files])
    assert run.returncode == 0, run.stdout + run.stderr


def test_kubernetes_accepts_every_object(documents):
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, "1.35", strict=True)
            continue
        for path in CUSTOM[document["kind"]]:
            value = document
            for step in path.split("."):
                value = value[int(step) if step.isdigit() else step]


def test_names_are_unique(documents):
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(names) == len(set(names))


def test_the_server_accepts_its_flags(documents, tmp_path):
    config = next(d for d in of_kind(documents, "ConfigMap") if "config.yaml" in d["data"])["data"]["config.yaml"]
    (tmp_path / "config.yaml").write_text(config)
    for name, pod in pod_specs(documents):
        container = pod["containers"][0]
        if "args" not in container:
            continue
        variables = {e["name"]: e.get("value", "10.1.2.3") for e in container["env"]}
        flags = [
            re.sub(r"\$\((\w+)\)", lambda m: variables[m[1]], a).replace("/etc/pyrograph", str(tmp_path))
            for a in container["args"]
        ]
        run = subprocess.run([BINARY, "config", "check", "--", *flags], capture_output=True, text=True, timeout=20)
        assert run.returncode == 0, f"{name}: {run.stderr}"
        assert not run.stderr, f"{name}: {run.stderr}"


def test_pods_have_no_rights_and_no_disks(documents):
    assert not of_kind(documents, "PersistentVolumeClaim") and not of_kind(documents, "StatefulSet")
    for name, pod in pod_specs(documents):
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"], name
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"], name
            assert rights["capabilities"]["drop"] == ["ALL"], name
        assert all("persistentVolumeClaim" not in volume for volume in pod["volumes"]), name


def test_a_process_is_never_killed_while_it_drains(documents):
    for name, pod in pod_specs(documents):
        container = pod["containers"][0]
        if "args" in container:
            drain = next(re.search(r"timeout=(\d+)s", a)[1] for a in container["args"] if "shutdown-timeout" in a)
            pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["terminationGracePeriodSeconds"] >= int(drain) + pause + 10, name
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"], name
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), name
            assert container["livenessProbe"]["httpGet"]["path"] != "/ready", "a draining process is alive"


def test_every_role_is_deployed_and_an_update_keeps_distributors_ingesters_and_the_owner_available():
    documents = render([DISTRIBUTED])
    deployments = {d["metadata"]["labels"]["app.kubernetes.io/component"]: d for d in of_kind(documents, "Deployment")}
    assert set(deployments) == ROLES
    for role in ROLES - {"compactor"}:
        rolling = deployments[role]["spec"]["strategy"]["rollingUpdate"]
        assert rolling["maxUnavailable"] == 0, role
    assert deployments["metastore"]["spec"]["replicas"] == 2
    budgets = {d["metadata"]["labels"]["app.kubernetes.io/component"]: d for d in of_kind(documents, "PodDisruptionBudget")}
    assert set(budgets) == ROLES and budgets["metastore"]["spec"]["minAvailable"] == 1
    scaled = {d["spec"]["scaleTargetRef"]["name"] for d in of_kind(documents, "HorizontalPodAutoscaler")}
    assert scaled == {f"p-pyrograph-{role}" for role in ROLES - {"metastore"}}
    assert all("replicas" not in d["spec"] for d in deployments.values() if d["metadata"]["name"] in scaled)


def test_members_find_one_another_before_they_are_ready():
    documents = render([DISTRIBUTED])
    members = next(d for d in of_kind(documents, "Service") if d["metadata"]["name"].endswith("-members"))
    assert members["spec"]["clusterIP"] == "None" and members["spec"]["publishNotReadyAddresses"]
    for _, pod in pod_specs(documents):
        for container in pod["containers"]:
            if "args" in container:
                assert f"-memberlist.join={members['metadata']['name']}.n.svc.cluster.local:7946" in container["args"]


def test_every_process_knows_its_zone():
    for name, pod in pod_specs(render([DISTRIBUTED])):
        container = pod["containers"][0]
        if "args" in container:
            assert "-instance.zone=$(ZONE)" in container["args"], name
            zone = next(e for e in container["env"] if e["name"] == "ZONE")
            assert "topology.kubernetes.io/zone" in zone["valueFrom"]["fieldRef"]["fieldPath"], name


def test_queriers_alone_cache_on_disk_and_are_not_evicted_for_it():
    def caches(*settings):
        for name, pod in pod_specs(render([DISTRIBUTED], *settings)):
            container = pod["containers"][0]
            flags = [a for a in container.get("args", []) if a.startswith("-querier.disk-cache-")]
            sizes = [v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == "cache"]
            assert bool(flags) == bool(sizes), name
            if flags:
                yield name, flags, sizes[0], container

    ((name, flags, size, container),) = caches()
    assert name == "p-pyrograph-querier" and size == "12Gi"
    assert flags == ["-querier.disk-cache-dir=/cache", f"-querier.disk-cache-bytes={10 << 30}"]
    assert {"name": "cache", "mountPath": "/cache"} in container["volumeMounts"]
    assert container["resources"]["requests"]["ephemeral-storage"] == size
    assert container["resources"]["requests"]["memory"] == "1Gi"
    ((_, flags, size, _),) = caches("--set=querier.diskCache.gib=1000")
    assert flags[1].endswith(f"={1000 << 30}") and size == "1126Gi"
    assert not list(caches("--set=querier.diskCache.gib=0"))


def test_only_pods_of_the_release_reach_the_port_between_roles():
    policies = of_kind(render(CASES["everything"]), "NetworkPolicy")
    rules = [rule for policy in policies for rule in policy["spec"]["ingress"]]
    inner = [rule for rule in rules if any(port["port"] in ("grpc", "gossip") for port in rule["ports"])]
    assert len(inner) == 1 and all(port["port"] != "http" for port in inner[0]["ports"])
    assert [list(peer) for peer in inner[0]["from"]] == [["podSelector"]]
    assert inner[0]["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "p"
    assert all(rule["from"] for rule in rules)


def test_pushes_go_to_distributors_and_all_other_requests_to_queriers():
    documents = render(CASES["everything"])
    (ingress,) = of_kind(documents, "Ingress")
    paths = {p["path"]: p["backend"]["service"]["name"] for p in ingress["spec"]["rules"][0]["http"]["paths"]}
    assert paths.pop("/") == "p-pyrograph-querier"
    assert {"/ingest", "/pyroscope/ingest", "/push.v1.PusherService"} == set(paths)
    assert set(paths.values()) == {"p-pyrograph-distributor"}
    services = {d["metadata"]["name"] for d in of_kind(documents, "Service")}
    assert {"p-pyrograph-querier", "p-pyrograph-distributor"} <= services


def test_alerts_and_dashboards_are_those_of_the_repository():
    documents = render(CASES["everything"])
    (rule,) = of_kind(documents, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
    files = {path.name: path.read_text() for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
    held = [d for d in of_kind(documents, "ConfigMap") if "grafana_dashboard" in d["metadata"]["labels"]]
    assert {name: text for d in held for name, text in d["data"].items()} == files and len(held) == len(files)


def test_secrets_are_in_no_config_map():
    for document in of_kind(render(CASES["several processes on S3"]), "ConfigMap"):
        assert "12345" not in yaml.safe_dump(document)


def test_impossible_settings_are_refused_with_the_reason():
    def refused(*settings):
        run = helm("template", "p", CHART, *[f"--set={setting}" for setting in settings])
        assert run.returncode != 0
        return run.stderr

    assert "give config.storage a bucket" in refused("mode=distributed")
    assert "only one process may use a directory" in refused("single.replicas=2")
    assert "repplicas" in refused("single.repplicas=2")
    assert "ingester" in refused("ingester.diskCache.gib=1")
    assert "hosts" in refused("ingress.enabled=true")

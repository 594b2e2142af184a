"""The manifests as documents; tests/container runs what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

import entrypoint
from tests.manifests import (
    CHART,
    DEPLOYMENTS,
    PLATFORMS,
    PUBLISHED,
    ROOT,
    charted,
    containers,
    documents,
    kustomize,
    memory,
    notes,
    only,
    parse,
)

pytestmark = pytest.mark.process  # kubectl, for most of them

PLAIN, UNINSTALL = "multus-daemonset.yml", "multus-uninstall.yml"
CHARTS = ["helm", *(f"helm {platform}" for platform in PLATFORMS if platform != "base")]
INSTALLERS = [PLAIN, *PLATFORMS, *CHARTS]
UNINSTALLERS = [UNINSTALL, *(f"{platform}/uninstall" for platform in PLATFORMS)]
ALL = [*INSTALLERS, *UNINSTALLERS]
RELEASES = ["1.37", "1.35"]
"""The Kubernetes release that is current at the time of writing, and the oldest that still gets fixes."""
ALL_OF_THE_CHART = {
    "flags": {"startup-taint": "multus-cni.io/not-ready:NoSchedule", "repair-pods": "delete"},
    "rbac": {"check": True},
}
"""Values that switch on what the manifest holds off with a # in the first column."""
TAINT = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}


def objects(name, *, switched_on=False):
    """Return the documents of a manifest, of a directory for `kubectl apply -k`, or of the chart for a platform."""
    kind, _, platform = name.partition(" ")
    if kind == "helm":
        return charted({"platform": platform, **(ALL_OF_THE_CHART if switched_on else {})})
    return documents(DEPLOYMENTS / name, switched_on=switched_on)


def daemon_set(name, **options):
    return only(objects(name, **options), "DaemonSet")


def pod_spec(name, **options):
    return daemon_set(name, **options)["spec"]["template"]["spec"]


def by_kind(found):
    return {document["kind"]: document for document in found}


def walk(value):
    """Yield every mapping in a document."""
    if isinstance(value, dict):
        yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(member)


def test_every_manifest_of_the_directory_is_tested_here():
    assert {path.name for path in DEPLOYMENTS.iterdir()} == {PLAIN, UNINSTALL, "helm", *PLATFORMS}


@pytest.mark.parametrize("switched_on", [False, True], ids=["as it is", "with what is off switched on"])
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ALL)
def test_every_object_fits_the_schema_of_a_kubernetes_release(name, release, switched_on):
    for document in objects(name, switched_on=switched_on):
        kubernetes_validate.validate(document, release, strict=True)


@pytest.mark.parametrize("name", INSTALLERS)
def test_a_field_that_does_not_exist_does_not_fit_the_schema(name):
    document = daemon_set(name)
    document["spec"]["template"]["spec"]["hostNetworks"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, RELEASES[0], strict=True)


@pytest.mark.parametrize("name", ALL)
def test_what_is_off_can_be_switched_on(name):
    assert objects(name, switched_on=True) != objects(name)


@pytest.mark.parametrize("name", INSTALLERS)
def test_switching_the_startup_taint_on_gives_the_flag_and_the_right_that_it_needs(name):
    def flags(found):
        (container,) = containers(only(found, "DaemonSet"))
        return [flag for flag in container["args"] if flag.startswith("--startup-taint")]

    off, on = objects(name), objects(name, switched_on=True)
    assert (TAINT in only(off, "ClusterRole")["rules"], flags(off)) == (False, [])
    assert TAINT in only(on, "ClusterRole")["rules"]
    assert flags(on) == ["--startup-taint=multus-cni.io/not-ready:NoSchedule"]
    (container,) = containers(only(off, "DaemonSet"))
    assert {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}} in container["env"]


@pytest.mark.parametrize("name", INSTALLERS)
def test_switching_the_repair_of_pods_on_gives_the_flag_and_the_rights_that_it_needs(name):
    def flags(found):
        (container,) = containers(only(found, "DaemonSet"))
        return [flag for flag in container["args"] if flag.startswith("--repair-pods")]

    off, on = objects(name), objects(name, switched_on=True)
    needed = {("", "pods", "list"), ("", "pods", "get"), ("", "pods/eviction", "create"), ("", "events", "create")}
    assert (needed <= granted(off), flags(off)) == (False, [])
    assert needed <= granted(on)
    assert flags(on) == ["--repair-pods=delete"]


def granted(found):
    return {
        (group, resource, verb)
        for rule in only(found, "ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("name", INSTALLERS)
def test_the_role_holds_what_multus_uses_and_nothing_else(name):
    """Looked up in Multus: k8sclient.go gets, draclient.go gets claims and lists slices, SetNetworkStatus updates."""
    definition = ("k8s.cni.cncf.io", "network-attachment-definitions", "get")
    pods = [("", "pods", "get"), ("", "pods/status", "update")]
    events = [(group, "events", verb) for group in ("", "events.k8s.io") for verb in ("create", "patch", "update")]
    devices = [("resource.k8s.io", "resourceclaims", "get"), ("resource.k8s.io", "resourceslices", "list")]
    scc = [("security.openshift.io", "securitycontextconstraints", "use")] if "openshift" in name else []
    assert granted(objects(name)) == {definition, *pods, *events, *devices, *scc}


@pytest.mark.parametrize("name", INSTALLERS)
def test_what_only_check_and_the_errands_use_is_off_until_it_is_switched_on(name):
    more = granted(objects(name, switched_on=True)) - granted(objects(name))
    assert more == {
        ("", "nodes", "get"),
        ("", "nodes", "patch"),
        ("", "pods", "list"),
        ("k8s.cni.cncf.io", "network-attachment-definitions", "list"),
        ("", "pods/eviction", "create"),
    }


@pytest.mark.parametrize("name", INSTALLERS)
def test_no_wildcard_is_in_the_roles_even_with_everything_switched_on(name):
    for rule in only(objects(name, switched_on=True), "ClusterRole")["rules"]:
        assert not any("*" in entry for entries in rule.values() for entry in entries)


@pytest.mark.parametrize("name", INSTALLERS)
def test_the_role_is_bound_to_the_account_that_the_pods_run_under(name):
    found = objects(name)
    binding = only(found, "ClusterRoleBinding")
    account = only(found, "ServiceAccount")["metadata"]
    assert binding["roleRef"]["name"] == only(found, "ClusterRole")["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", **account}]
    assert pod_spec(name)["serviceAccountName"] == account["name"]
    assert daemon_set(name)["metadata"]["namespace"] == account["namespace"]


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_privileged_and_every_container_gives_up_what_it_can(name):
    for mapping in walk(objects(name, switched_on=True)):
        assert mapping.get("privileged", False) is False
    for container in containers(daemon_set(name)):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["capabilities"].get("add", []) in ([], ["DAC_OVERRIDE"])
    context = pod_spec(name)["securityContext"]
    assert context == {"seccompProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": {"type": "spc_t"}}
    for share in ("hostPID", "hostIPC"):
        assert not pod_spec(name).get(share)


@pytest.mark.parametrize("name", ALL)
def test_every_container_asks_for_cpu_without_a_limit_and_for_all_the_memory_that_it_may_have(name):
    for container in containers(daemon_set(name)):
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert resources["limits"] == {"memory": resources["requests"]["memory"]}


@pytest.mark.parametrize("name", INSTALLERS)
def test_the_installer_reserves_little_on_each_node(name):
    (container,) = containers(daemon_set(name))
    assert container["resources"]["requests"]["cpu"] == "100m"
    assert memory(container["resources"]["requests"]["memory"]) <= 96 * 2**20


@pytest.mark.parametrize("name", ALL)
def test_no_service_of_the_namespace_becomes_a_variable_of_the_pod(name):
    assert pod_spec(name)["enableServiceLinks"] is False


@pytest.mark.parametrize("name", ALL)
def test_every_pod_reaches_every_node_early_and_says_why_it_failed(name):
    spec = pod_spec(name)
    assert spec["hostNetwork"] is True
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    for container in containers(daemon_set(name)):
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("name", INSTALLERS)
def test_a_rollout_goes_node_by_node_starts_the_new_pod_first_and_waits_for_the_ready_file(name):
    found = daemon_set(name)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert found["spec"]["updateStrategy"] == strategy
    (container,) = containers(found)
    assert not any("ports" in each for each in containers(found))  # two pods of a node's network could not share one
    (flag,) = [flag for flag in container["args"] if flag.startswith("--ready-file=")]
    ready_file = flag.partition("=")[2]
    assert container["readinessProbe"]["exec"]["command"] == ["/usr/bin/test", "-f", ready_file]


def test_one_image_is_used_in_all_places_and_its_version_is_that_of_the_package():
    images = {container["image"] for name in ALL for container in containers(daemon_set(name))}
    (image,) = images
    assert image.rpartition(":")[2] == f"v{entrypoint.__version__}"


@pytest.mark.parametrize("name", INSTALLERS)
def test_an_existing_installation_is_updated_in_place(name):
    ours = daemon_set(name)
    theirs = only(documents(PUBLISHED / "multus-4.3.yml"), "DaemonSet")
    assert ours["metadata"]["name"] == theirs["metadata"]["name"]
    assert ours["metadata"]["namespace"] == theirs["metadata"]["namespace"]
    assert ours["spec"]["selector"] == theirs["spec"]["selector"]  # immutable: another one is refused by the API server
    assert ours["spec"]["template"]["metadata"]["labels"] == {"tier": "node", "app": "multus", "name": "multus"}
    assert containers(ours)[-1]["name"] == containers(theirs)[-1]["name"]


@pytest.mark.parametrize("name", UNINSTALLERS)
def test_the_uninstaller_is_a_daemon_set_of_its_own(name):
    installer, uninstaller = daemon_set(PLAIN), daemon_set(name)
    assert installer["metadata"]["name"] != uninstaller["metadata"]["name"]
    labels = uninstaller["spec"]["template"]["metadata"]["labels"]
    (key, value), *_ = installer["spec"]["selector"]["matchLabels"].items()
    assert labels[key] != value
    assert uninstaller["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", UNINSTALLERS)
def test_the_uninstaller_has_an_account_of_its_own_for_what_multus_does_meanwhile(name):
    """Another than the installer's, so that deleting the uninstaller takes nothing from an installer that is back."""
    found = objects(name)
    account, binding = only(found, "ServiceAccount")["metadata"], only(found, "ClusterRoleBinding")
    names = {only(found, kind)["metadata"]["name"] for kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")}
    assert names == {"multus-uninstall"}
    assert binding["roleRef"]["name"] == "multus-uninstall"
    assert binding["subjects"] == [{"kind": "ServiceAccount", **account}]
    assert granted(found) == granted(objects(PLAIN))
    spec = pod_spec(name)
    assert spec["serviceAccountName"] == ("multus" if name.startswith("openshift") else account["name"])
    (volume,) = [volume for volume in spec["volumes"] if "projected" in volume]
    (theirs,) = [volume for volume in pod_spec(PLAIN)["volumes"] if "projected" in volume]
    assert volume == theirs
    mounting = [
        each["name"] for each in containers(daemon_set(name)) if volume["name"] in str(each.get("volumeMounts"))
    ]
    assert mounting == ["uninstall"]


@pytest.mark.parametrize("name", INSTALLERS)
def test_the_token_is_one_that_kubelet_rotates(name):
    assert pod_spec(name)["automountServiceAccountToken"] is False
    (volume,) = [volume for volume in pod_spec(name)["volumes"] if "projected" in volume]
    (token,) = [
        source["serviceAccountToken"] for source in volume["projected"]["sources"] if "serviceAccountToken" in source
    ]
    assert token["path"] == "token"
    assert 600 <= token["expirationSeconds"] <= 86400  # the API server refuses less, and some clusters cap it to a day
    (container,) = containers(daemon_set(name))
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.mark.parametrize("name", ALL)
def test_every_mount_has_its_volume_and_every_volume_is_mounted(name):
    mounted = {
        mount["name"] for container in containers(daemon_set(name)) for mount in container.get("volumeMounts", [])
    }
    assert mounted == {volume["name"] for volume in pod_spec(name)["volumes"]}


@pytest.mark.parametrize("name", INSTALLERS)
def test_the_configuration_of_the_config_map_is_the_one_that_the_image_carries(name):
    (text,) = only(objects(name), "ConfigMap")["data"].values()
    assert json.loads(text) == json.loads((ROOT / "images" / "70-multus.conf").read_text())


@pytest.mark.parametrize("name", ["multus-3.9.yml", "multus-4.3.yml"])
def test_the_published_forms_are_those_that_have_fifty_mebibytes_and_a_tenth_of_a_cpu(name):
    *_, container = containers(only(documents(PUBLISHED / name), "DaemonSet"))
    assert memory(container["resources"]["limits"]["memory"]) == 50 * 2**20
    assert container["resources"]["limits"]["cpu"] == "100m"


# The platforms, for `kubectl apply -k`.


def host_paths(name):
    """Return the runtime's directories on the host: of the configuration, and of the plugins."""
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod_spec(name)["volumes"] if "hostPath" in volume}
    return paths["cni"], paths["cnibin"]


def installs(daemon_set):
    """Return the container that has the flags."""
    return containers(daemon_set)[0]


@pytest.mark.parametrize("path", ["multus-daemonset.yml", "uninstall/multus-uninstall.yml"])
def test_the_base_is_a_copy_of_the_manifest(path):
    copy = DEPLOYMENTS / "base" / path
    assert copy.read_text() == (DEPLOYMENTS / copy.name).read_text(), "run `make manifests`"


@pytest.mark.parametrize(("name", "manifest"), [("base", PLAIN), ("base/uninstall", UNINSTALL)])
def test_the_base_makes_the_objects_of_the_manifest(name, manifest):
    assert by_kind(objects(name)) == by_kind(objects(manifest))


@pytest.mark.parametrize("name", [*PLATFORMS, *(f"{platform}/uninstall" for platform in PLATFORMS)])
def test_a_platform_differs_from_the_base_in_the_paths_on_the_host_and_in_what_its_file_says(name):
    manifest = UNINSTALL if name.endswith("/uninstall") else PLAIN
    ours, theirs = by_kind(objects(name)), by_kind(objects(manifest))
    document = ours["DaemonSet"]
    spec = document["spec"]["template"]["spec"]
    for volume in spec["volumes"]:
        if volume["name"] in ("cni", "cnibin"):
            volume["hostPath"]["path"] = {"cni": "/etc/cni/net.d", "cnibin": "/opt/cni/bin"}[volume["name"]]
    arguments = installs(document)["args"]
    arguments[:] = [flag for flag in arguments if not flag.startswith("--multus-kubeconfig-file-host=")]
    if name == "crio":
        (container,) = containers(document)
        container["args"].remove("--restart-crio=false")
        container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "dbus"]
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "dbus"]
    elif name == "openshift":
        ours["ClusterRole"]["rules"].pop()
    elif name == "openshift/uninstall":
        spec["serviceAccountName"] = "multus-uninstall"
    for found in (document, theirs["DaemonSet"]):
        found["spec"]["template"]["spec"]["volumes"].sort(key=lambda volume: volume["name"])
        installs(found)["volumeMounts"].sort(key=lambda mount: mount["name"])
    assert ours == theirs


@pytest.mark.parametrize("name", [*INSTALLERS, *UNINSTALLERS])
def test_the_kubeconfig_is_named_by_the_path_that_it_has_on_the_host(name):
    configuration, _ = host_paths(name)
    named = [flag for flag in installs(daemon_set(name))["args"] if flag.startswith("--multus-kubeconfig-file-host=")]
    path = f"{configuration}/multus.d/multus.kubeconfig"
    default = "/etc/cni/net.d/multus.d/multus.kubeconfig"
    assert named == ([] if path == default else [f"--multus-kubeconfig-file-host={path}"])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_uninstaller_of_a_platform_cleans_where_its_installer_wrote(platform):
    assert host_paths(f"{platform}/uninstall") == host_paths(platform)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_platform_says_where_its_paths_are_from(platform):
    text = (DEPLOYMENTS / platform / "kustomization.yaml").read_text()
    assert f"kubectl apply -k deployments/{platform}" in text
    assert platform == "base" or re.search(r"^# Source: .*?\b20\d\d\.?", text, re.MULTILINE | re.DOTALL)


def test_a_platform_can_be_applied_from_a_repository_by_its_url(tmp_path):
    shutil.copytree(DEPLOYMENTS, tmp_path / "deployments")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "test"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    text = kustomize(f"file://{tmp_path}//deployments/crio?ref=main")
    assert list(yaml.safe_load_all(text)) == objects("crio")


# The Helm chart.


def test_the_chart_makes_the_objects_of_the_manifest():
    assert by_kind(objects("helm")) == by_kind(objects(PLAIN))
    assert len(objects("helm")) == len(objects(PLAIN))


@pytest.mark.parametrize("platform", [platform for platform in PLATFORMS if platform != "base"])
def test_the_chart_makes_of_a_platform_what_kustomize_makes_of_its_directory(platform):
    chart, directory = by_kind(objects(f"helm {platform}")), by_kind(objects(platform))
    for found in (chart, directory):
        found["DaemonSet"]["spec"]["template"]["spec"]["volumes"].sort(key=lambda volume: volume["name"])
        installs(found["DaemonSet"])["volumeMounts"].sort(key=lambda mount: mount["name"])
    assert chart == directory


def chart_args(**values):
    (container,) = containers(only(charted(values), "DaemonSet"))
    return container["args"]


def test_the_chart_has_every_platform_in_its_schema():
    assert sorted(schema()["platform"]["enum"]) == sorted({"", *PLATFORMS} - {"base"})


def schema():
    return json.loads((CHART / "values.schema.json").read_text())["properties"]


MOUNTED = {"cni-conf-dir", "cni-bin-dir", "multus-autoconfig-dir", "ready-file", "service-account-dir"}
"""Flags that follow from what the chart mounts where."""


def test_the_chart_takes_every_flag_of_the_program():
    table = (ROOT / "README.md").read_text().partition("<!-- flags")[2].partition("<!-- end of flags")[0]
    flags = set(re.findall(r"^\| `--([\w-]+)`", table, re.MULTILINE))
    assert len(flags) > 20
    assert set(schema()["flags"]["properties"]) == flags - MOUNTED - {"dry-run"}


def test_a_flag_of_the_chart_is_a_flag_of_the_program():
    args = chart_args(
        flags={
            "cni-version": "0.3.1",
            "namespace-isolation": True,
            "multus-log-to-stderr": False,
            "wait-timeout": 1000000,
            "global-namespaces": "",
            "multus-log-file": None,
            "multus-conf-patch": {"logOptions": {"maxSize": 10}},
            "multus-master-cni-exclude": ["200-*", "87-*"],
        },
        extraArgs=["--cleanup-config-on-exit"],
    )
    assert args[5:] == [
        "--cni-version=0.3.1",
        '--multus-conf-patch={"logOptions":{"maxSize":10}}',
        "--multus-log-to-stderr=false",
        "--multus-master-cni-exclude=200-*",
        "--multus-master-cni-exclude=87-*",
        "--namespace-isolation=true",
        "--wait-timeout=1000000",
        "--cleanup-config-on-exit",
    ]


def test_directories_of_your_own_win_over_those_of_the_platform():
    found = charted({"platform": "k3s", "hostPaths": {"confDir": "/data/k3s/agent/etc/cni/net.d"}})
    spec = only(found, "DaemonSet")["spec"]["template"]["spec"]
    paths = [volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume]
    assert paths == ["/data/k3s/agent/etc/cni/net.d", "/var/lib/rancher/k3s/data/cni"]
    path = "/data/k3s/agent/etc/cni/net.d/multus.d/multus.kubeconfig"
    assert spec["containers"][0]["args"][5:] == [f"--multus-kubeconfig-file-host={path}"]


def test_the_image_of_the_chart_can_be_one_digest():
    digest = f"sha256:{'0' * 64}"
    (container,) = containers(only(charted({"image": {"digest": digest, "tag": "v9"}}), "DaemonSet"))
    assert container["image"] == f"ghcr.io/multus-entrypoint/multus-entrypoint@{digest}"


def test_the_chart_passes_on_what_is_for_the_scheduler_and_the_registry():
    values = {
        "nodeSelector": {"pool": "blue"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"podAffinity": {}},
        "imagePullSecrets": [{"name": "registry"}],
        "podLabels": {"team": "net", "name": "not this one"},
        "podAnnotations": {"note": "x"},
        "extraEnv": [{"name": "KUBECONFIG_MODE", "value": "640"}],
    }
    template = only(charted(values), "DaemonSet")["spec"]["template"]
    spec = template["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "blue"}
    assert (spec["tolerations"], spec["affinity"]) == (values["tolerations"], values["affinity"])
    assert spec["imagePullSecrets"] == values["imagePullSecrets"]
    assert spec["containers"][0]["env"][1:] == values["extraEnv"]
    assert template["metadata"]["labels"] == {"team": "net", "tier": "node", "app": "multus", "name": "multus"}
    assert template["metadata"]["annotations"] == values["podAnnotations"]


def commands(values):
    return [line.strip() for line in notes(values).splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("platform", ["", "k3s"])
def test_the_notes_of_the_chart_take_multus_off_again_with_the_image_that_was_installed(platform):
    said = commands({"platform": platform, "image": {"repository": "registry.example.com/infra/multus-entrypoint"}})
    apply = (
        said[2]
        .removesuffix(" | kubectl apply -f -")
        .replace("kubectl", str(Path(sys.executable).parent / "kubectl"), 1)
    )
    applied = subprocess.run(["sh", "-c", apply], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    daemon_set = only(parse(applied), "DaemonSet")
    assert {each["image"] for each in containers(daemon_set)} == {
        f"registry.example.com/infra/multus-entrypoint:v{entrypoint.__version__}"
    }
    assert ("/var/lib/rancher/k3s/data/cni" in str(daemon_set)) == bool(platform)
    assert (ROOT / said[4].split()[-1]).exists()
    assert said[5] == "helm -n kube-system uninstall any"


def test_the_notes_of_the_chart_tell_of_directories_of_ones_own():
    assert "/elsewhere/net.d and `cnibin` to /opt/cni/bin" in notes({"hostPaths": {"confDir": "/elsewhere/net.d"}})
    assert "cnibin" not in notes({})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"platfrom": "k3s"}, "'platfrom' not allowed"),
        ({"platform": "k8s"}, "/platform"),
        ({"flags": {"cni-vers": "1.0.0"}}, "'cni-vers' not allowed"),
        ({"flags": {"namespace-isolation": "maybe"}}, "namespace-isolation"),
        ({"flags": {"cni-conf-dir": "/elsewhere"}}, "'cni-conf-dir' not allowed"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
    ],
)
def test_the_chart_refuses_what_its_schema_does_not_have(values, message):
    helm = pytest.importorskip("helm_python")
    with pytest.raises(helm.HelmError, match=re.escape(message)):
        charted(values)


def test_helm_finds_nothing_to_complain_about():
    helm = pytest.importorskip("helm_python")
    report = helm.chart.lint(CHART, strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_the_version_of_the_chart_is_that_of_the_package():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == entrypoint.__version__


def test_the_values_on_the_page_of_the_chart_are_taken():
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (CHART / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "--multus-log-level=verbose" in chart_args(**yaml.safe_load(text))

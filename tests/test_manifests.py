"""The manifests as documents; tests/container runs what they say."""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
import subprocess

import pytest

import entrypoint
from tests.manifests import (
    DEPLOYMENTS,
    PLATFORMS,
    PUBLISHED,
    ROOT,
    charted,
    containers,
    documents,
    host_paths,
    kustomize,
    memory,
    only,
    parse,
    walk,
)

pytestmark = pytest.mark.process  # kubectl, for most of them

PLAIN, UNINSTALL, POLICY = "multus-daemonset.yml", "multus-uninstall.yml", "multus-policy.yml"
RELEASES = ["1.37", "1.35"]
"""The Kubernetes release that is current at the time of writing, and the oldest that still gets fixes."""
ALL_OF_THE_CHART = {
    "flags": {"startup-taint": "multus-cni.io/not-ready:NoSchedule", "repair-pods": "delete"},
    "rbac": {"check": True},
}
"""Values that switch on what the manifest holds off with a # in the first column."""
RULES = []
"""Each with whether it is for what installs, for what uninstalls, or (None) for both."""


class Manifest:
    """A manifest, or a directory for `kubectl apply -k`; as it is, and all switched on."""

    def __init__(self, name):
        self.name = name
        self.installs = "uninstall" not in name
        self.found, self.switched_on = (documents(DEPLOYMENTS / name, switched_on=each) for each in (False, True))
        self.daemon_set = only(self.found, "DaemonSet")
        self.template = self.daemon_set["spec"]["template"]
        self.spec = self.template["spec"]
        self.containers = containers(self.daemon_set)
        self.first = self.containers[0]
        """The container that has the flags."""

    def only(self, kind):
        return only(self.found, kind)

    def token_volume(self):
        (volume,) = [volume for volume in self.spec["volumes"] if "projected" in volume]
        return volume

    def host_paths(self):
        """Return the runtime's directories on the host: of the configuration, and of the plugins."""
        return host_paths(self.daemon_set)

    def flags(self, name):
        return [flag for flag in self.first["args"] if flag.partition("=")[0] == name]


manifest = functools.cache(Manifest)


def by_kind(found):
    """Return a copy of the documents by kind, with what has no order of its own in order."""
    ordered = {document["kind"]: copy.deepcopy(document) for document in found}
    spec = ordered["DaemonSet"]["spec"]["template"]["spec"]
    for container in containers(ordered["DaemonSet"]):
        container.get("volumeMounts", []).sort(key=lambda mount: mount["name"])
    spec["volumes"].sort(key=lambda volume: volume["name"])
    return ordered


def granted(found):
    return {
        (group, resource, verb)
        for rule in only(found, "ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@functools.cache
def fits_the_schema(text, release):
    import kubernetes_validate

    kubernetes_validate.validate(json.loads(text), release, strict=True)


# ---- rules that all of them keep ----


def rule(*, installs=None):
    def add(function):
        RULES.append((installs, function))
        return function

    return add


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_manifests_of_a_platform_keep_every_rule(platform):
    """And the chart makes the same. Each is rendered in one test, and so once; the base is the plain manifest."""
    assert manifest(f"{platform}/uninstall").host_paths() == manifest(platform).host_paths()
    # The policy is for tests/test_policy.py.
    values = {"platform": "" if platform == "base" else platform, "admissionPolicy": False}
    assert by_kind(charted(values)) == by_kind(manifest(platform).found)
    assert granted(charted({**values, **ALL_OF_THE_CHART})) == granted(manifest(platform).switched_on)
    broken = []
    for each in map(manifest, [platform, f"{platform}/uninstall"]):
        for installs, keeps in RULES:
            if installs in (None, each.installs):
                try:
                    keeps(each)
                except Exception as error:
                    error.add_note(f"{each.name} does not keep the rule {keeps.__name__}")
                    broken.append(error)
    if broken:
        raise ExceptionGroup(f"broken rules on {platform}", broken)


@rule()
def every_object_fits_the_schema_of_a_kubernetes_release(each):
    for release in RELEASES:
        for document in (*each.found, *each.switched_on):
            if document["kind"] != "SecurityContextConstraints":  # OpenShift's
                fits_the_schema(json.dumps(document), release)


@rule()
def what_is_off_can_be_switched_on(each):
    assert each.switched_on != each.found


@rule(installs=True)
def the_role_holds_what_multus_uses_and_nothing_else(each):
    """Looked up in Multus: k8sclient.go gets, draclient.go gets claims and lists slices, SetNetworkStatus updates."""
    definition = ("k8s.cni.cncf.io", "network-attachment-definitions", "get")
    pods = [("", "pods", "get"), ("", "pods/status", "update")]
    events = [("", "events", verb) for verb in ("create", "patch")]  # core/v1, by an EventBroadcaster
    devices = [("resource.k8s.io", "resourceclaims", "get"), ("resource.k8s.io", "resourceslices", "list")]
    scc = [("security.openshift.io", "securitycontextconstraints", "use")] if "openshift" in each.name else []
    assert granted(each.found) == {definition, *pods, *events, *devices, *scc}


@rule(installs=True)
def what_only_check_and_the_errands_use_is_off_until_it_is_switched_on(each):
    assert granted(each.switched_on) - granted(each.found) == {
        ("", "nodes", "get"),
        ("", "nodes", "patch"),
        ("", "pods", "list"),
        ("k8s.cni.cncf.io", "network-attachment-definitions", "list"),
        ("", "pods/eviction", "create"),
    }
    (container,) = containers(only(each.switched_on, "DaemonSet"))
    errands = {"--startup-taint=multus-cni.io/not-ready:NoSchedule", "--repair-pods=delete"}
    assert set(container["args"]) - set(each.first["args"]) - {"--restart-crio=true"} == errands
    assert {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}} in each.first["env"]


@rule(installs=True)
def the_role_is_bound_to_the_account_that_the_pods_run_under(each):
    binding, account = each.only("ClusterRoleBinding"), each.only("ServiceAccount")["metadata"]
    assert binding["roleRef"]["name"] == each.only("ClusterRole")["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", **account}]
    assert each.spec["serviceAccountName"] == account["name"]
    assert each.daemon_set["metadata"]["namespace"] == account["namespace"]


@rule()
def nothing_is_privileged_and_every_container_gives_up_what_it_can(each):
    for mapping in walk(each.switched_on):
        assert mapping.get("privileged", False) is False
    for container in each.containers:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["capabilities"].get("add", []) in ([], ["DAC_OVERRIDE"])
    seen = {"seccompProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": {"type": "spc_t"}}
    assert each.spec["securityContext"] == seen
    assert not each.spec.get("hostPID") and not each.spec.get("hostIPC")


@rule()
def every_container_asks_for_cpu_without_a_limit_and_for_all_the_memory_that_it_may_have(each):
    for container in each.containers:
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert resources["limits"] == {"memory": resources["requests"]["memory"]}


@rule(installs=True)
def the_installer_reserves_little_on_each_node(each):
    (container,) = each.containers
    assert container["resources"]["requests"]["cpu"] == "100m"
    assert memory(container["resources"]["requests"]["memory"]) <= 96 * 2**20


@rule()
def every_pod_reaches_every_node_early_and_says_why_it_failed(each):
    assert each.spec["hostNetwork"] is True
    assert each.spec["tolerations"] == [{"operator": "Exists"}]
    assert each.spec["priorityClassName"] == "system-node-critical"
    assert each.spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert each.spec["enableServiceLinks"] is False  # no Service of the namespace becomes a variable of the pod
    for container in each.containers:
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


@rule(installs=True)
def a_rollout_goes_node_by_node_starts_the_new_pod_first_and_waits_for_the_ready_file(each):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert each.daemon_set["spec"]["updateStrategy"] == strategy
    assert each.containers[-1]["readinessProbe"]["failureThreshold"] == 1  # the file says it for certain
    assert not any("ports" in container for container in each.containers)  # two pods of a node could not share one
    (flag,) = each.flags("--ready-file")
    probe = each.containers[-1]["readinessProbe"]["exec"]["command"]
    assert probe == ["/usr/bin/test", "-f", flag.partition("=")[2]]


@rule()
def one_image_is_used_in_all_places_and_its_version_is_that_of_the_package(each):
    images = {container["image"] for container in each.containers}
    assert images == {f"ghcr.io/multus-entrypoint/multus-entrypoint:v{entrypoint.__version__}"}


@rule(installs=True)
def an_existing_installation_is_updated_in_place(each):
    ours, theirs = each.daemon_set, only(documents(PUBLISHED / "multus-4.3.yml"), "DaemonSet")
    assert ours["metadata"]["name"] == theirs["metadata"]["name"]
    assert ours["metadata"]["namespace"] == theirs["metadata"]["namespace"]
    assert ours["spec"]["selector"] == theirs["spec"]["selector"]  # immutable: another one is refused by the API server
    assert each.template["metadata"]["labels"] == {"tier": "node", "app": "multus", "name": "multus"}
    assert each.containers[-1]["name"] == containers(theirs)[-1]["name"]


@rule(installs=False)
def the_uninstaller_is_a_daemon_set_of_its_own(each):
    installer = manifest(PLAIN).daemon_set
    assert installer["metadata"]["name"] != each.daemon_set["metadata"]["name"]
    labels = each.template["metadata"]["labels"]
    (key, value), *_ = installer["spec"]["selector"]["matchLabels"].items()
    assert labels[key] != value
    assert each.daemon_set["spec"]["selector"]["matchLabels"].items() <= labels.items()


@rule(installs=False)
def the_uninstaller_has_an_account_of_its_own_for_what_multus_does_meanwhile(each):
    """Another than the installer's, so that deleting the uninstaller takes nothing from an installer that is back."""
    account, binding = each.only("ServiceAccount")["metadata"], each.only("ClusterRoleBinding")
    names = {each.only(kind)["metadata"]["name"] for kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")}
    assert names == {"multus-uninstall"}
    assert binding["roleRef"]["name"] == "multus-uninstall"
    assert binding["subjects"] == [{"kind": "ServiceAccount", **account}]
    assert granted(each.found) == granted(manifest(each.name.partition("/")[0]).found)
    assert each.spec["serviceAccountName"] == account["name"]
    volume = each.token_volume()
    assert volume == manifest(PLAIN).token_volume()
    mounting = [one["name"] for one in each.containers if volume["name"] in str(one.get("volumeMounts"))]
    assert mounting == ["uninstall"]


@rule(installs=True)
def the_token_is_one_that_kubelet_rotates(each):
    assert each.spec["automountServiceAccountToken"] is False
    sources = each.token_volume()["projected"]["sources"]
    (token,) = [source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source]
    assert token["path"] == "token"
    assert 600 <= token["expirationSeconds"] <= 86400  # the API server refuses less, and some clusters cap it to a day
    (container,) = each.containers
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == each.token_volume()["name"]]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"


@rule()
def every_mount_has_its_volume_and_every_volume_is_mounted(each):
    mounted = {mount["name"] for container in each.containers for mount in container.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in each.spec["volumes"]}


@rule(installs=True)
def the_configuration_of_the_config_map_is_the_one_that_the_image_carries(each):
    (text,) = each.only("ConfigMap")["data"].values()
    assert json.loads(text) == json.loads((ROOT / "images" / "70-multus.conf").read_text())


@rule(installs=True)
def a_static_configuration_is_for_root_alone_as_the_cis_benchmark_wants_it(each):
    (mode,) = [volume["configMap"]["defaultMode"] for volume in each.spec["volumes"] if "configMap" in volume]
    assert mode == 0o600


@rule(installs=False)
def network_namespaces_are_looked_for_where_the_records_name_them(each):
    """On Talos /var/run is a directory of its own, and /run/netns is created empty by the mount: nobody lives there."""
    (path,) = [volume["hostPath"]["path"] for volume in each.spec["volumes"] if volume["name"] == "netns"]
    (mount,) = [mount for mount in each.first["volumeMounts"] if mount["name"] == "netns"]
    assert (path, mount["mountPath"]) == ("/var/run/netns", "/host/var/run/netns")


@rule()
def no_mount_stays_behind_when_a_link_on_its_way_changes(each):
    """As `current` on MicroK8s: the runtime would read another directory than the one that is mounted."""
    assert not [path for path in each.host_paths() if "/current/" in path and f"/host{path}" not in str(each.first)]
    assert not [mapping for mapping in walk(each.spec["volumes"]) if "/current" in str(mapping.get("path"))]


@rule()
def the_system_bus_is_mounted_nowhere_until_crio_is_to_be_restarted(each):
    assert "dbus" not in json.dumps(each.found)


@rule()
def the_kubeconfig_is_named_by_the_path_that_it_has_on_the_host(each):
    path = f"{each.host_paths()[0]}/multus.d/multus.kubeconfig"
    default = "/etc/cni/net.d/multus.d/multus.kubeconfig"
    named = [] if path == default else [f"--multus-kubeconfig-file-host={path}"]
    assert each.flags("--multus-kubeconfig-file-host") == named


# ---- the platforms, for `kubectl apply -k` ----


def test_every_manifest_of_the_directory_is_tested_here():
    assert {path.name for path in DEPLOYMENTS.iterdir()} == {PLAIN, UNINSTALL, POLICY, "helm", "components", *PLATFORMS}


def test_a_field_that_does_not_exist_does_not_fit_the_schema():
    import kubernetes_validate

    document = copy.deepcopy(manifest(PLAIN).daemon_set)
    document["spec"]["template"]["spec"]["hostNetworks"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        fits_the_schema(json.dumps(document), RELEASES[0])


def test_the_base_is_a_copy_of_the_manifests():
    for path in (PLAIN, f"uninstall/{UNINSTALL}"):
        copied = DEPLOYMENTS / "base" / path
        assert copied.read_text() == (DEPLOYMENTS / copied.name).read_text(), "run `make manifests`"


def test_a_platform_says_where_its_paths_are_from():
    for platform in PLATFORMS:
        text = (DEPLOYMENTS / platform / "kustomization.yaml").read_text()
        assert f"kubectl apply -k deployments/{platform}" in text
        assert platform == "base" or re.search(r"^# Source: .*?\b20\d\d\.?", text, re.MULTILINE | re.DOTALL), platform


def test_a_platform_can_be_applied_from_a_repository_by_its_url(tmp_path):
    shutil.copytree(DEPLOYMENTS, tmp_path / "deployments")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "test"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    url = f"file://{str(tmp_path).replace(' ', '%20')}//deployments/crio?ref=main"
    assert parse(kustomize(url)) == documents(DEPLOYMENTS / "crio")

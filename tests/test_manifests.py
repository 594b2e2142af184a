"""The manifests as documents; tests/container runs what they say."""

from __future__ import annotations

import json

import kubernetes_validate
import pytest
import yaml

import entrypoint
from tests.manifests import DEPLOYMENTS, PUBLISHED, ROOT, containers, documents, memory, only

INSTALLERS = ["multus-daemonset.yml", "multus-daemonset-crio.yml"]
ALL = [*INSTALLERS, "multus-uninstall.yml"]
RELEASES = ["1.37", "1.35"]
"""The Kubernetes release that is current at the time of writing, and the oldest that still gets fixes."""


def objects(name, **options):
    return documents(DEPLOYMENTS / name, **options)


def daemon_set(name, **options):
    return only(objects(name, **options), "DaemonSet")


def pod_spec(name, **options):
    return daemon_set(name, **options)["spec"]["template"]["spec"]


def walk(value):
    """Yield every mapping in a document."""
    if isinstance(value, dict):
        yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(member)


def test_every_manifest_of_the_directory_is_tested_here():
    assert sorted(path.name for path in DEPLOYMENTS.iterdir()) == sorted(ALL)


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
    def nodes_rules(found):
        return [rule for rule in only(found, "ClusterRole")["rules"] if "nodes" in rule["resources"]]

    def flags(found):
        (container,) = containers(only(found, "DaemonSet"))
        return [flag for flag in container["args"] if flag.startswith("--startup-taint")]

    off, on = objects(name), objects(name, switched_on=True)
    assert (nodes_rules(off), flags(off)) == ([], [])
    assert nodes_rules(on) == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}]
    assert flags(on) == ["--startup-taint=multus-cni.io/not-ready:NoSchedule"]
    (container,) = containers(only(off, "DaemonSet"))
    assert {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}} in container["env"]


@pytest.mark.parametrize("name", INSTALLERS)
def test_the_role_holds_what_multus_uses_and_nothing_else(name):
    granted = {
        (group, resource, verb)
        for rule in only(objects(name), "ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    definitions = [("k8s.cni.cncf.io", "network-attachment-definitions", verb) for verb in ("get", "list", "watch")]
    status = [("", "pods/status", verb) for verb in ("get", "update", "patch")]
    events = [(group, "events", verb) for group in ("", "events.k8s.io") for verb in ("create", "patch", "update")]
    devices = [
        ("resource.k8s.io", kind, verb) for kind in ("resourceclaims", "resourceslices") for verb in ("get", "list")
    ]
    assert granted == {("", "pods", "get"), *definitions, *status, *events, *devices}


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
def test_every_pod_is_of_the_class_guaranteed(name):
    for container in containers(daemon_set(name)):
        resources = container["resources"]
        assert set(resources["limits"]) == {"cpu", "memory"}
        assert resources["limits"] == resources["requests"]


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
def test_a_rollout_goes_node_by_node_and_waits_for_the_ready_file(name):
    found = daemon_set(name)
    assert found["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    (container,) = containers(found)
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


def test_the_uninstaller_is_a_daemon_set_of_its_own():
    installer, uninstaller = (daemon_set(name) for name in ("multus-daemonset.yml", "multus-uninstall.yml"))
    assert installer["metadata"]["name"] != uninstaller["metadata"]["name"]
    labels = uninstaller["spec"]["template"]["metadata"]["labels"]
    (key, value), *_ = installer["spec"]["selector"]["matchLabels"].items()
    assert labels[key] != value
    assert uninstaller["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert [document["kind"] for document in objects("multus-uninstall.yml")] == ["DaemonSet"]


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


def test_the_two_installers_differ_only_in_what_cri_o_needs():
    plain, crio = (objects(name) for name in INSTALLERS)
    for ours, theirs in zip(plain, crio, strict=True):
        if ours["kind"] != "DaemonSet":
            assert ours == theirs
    text = yaml.safe_dump(only(crio, "DaemonSet")).replace("/usr/libexec/cni", "/opt/cni/bin")
    document = yaml.safe_load(text)
    (container,) = containers(document)
    container["args"].remove("--restart-crio=false")
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "dbus"]
    spec = document["spec"]["template"]["spec"]
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "dbus"]
    assert document == only(plain, "DaemonSet")


@pytest.mark.parametrize("name", ["multus-3.9.yml", "multus-4.3.yml"])
def test_the_published_forms_are_those_that_have_fifty_mebibytes_and_a_tenth_of_a_cpu(name):
    *_, container = containers(only(documents(PUBLISHED / name), "DaemonSet"))
    assert memory(container["resources"]["limits"]["memory"]) == 50 * 2**20
    assert container["resources"]["limits"]["cpu"] == "100m"

"""The Helm chart's values: each one reaches its place, and none reaches further."""

from __future__ import annotations

import functools
import json
import operator
import re
import shutil
import subprocess
import sys
from pathlib import Path

import helm_python as helm
import pytest
import yaml

import entrypoint
import tests.manifests as reading
from entrypoint.cli.flags import ENTRYPOINT
from tests.manifests import (
    CHART,
    DEPLOYMENTS,
    PLATFORMS,
    ROOT,
    charted,
    containers,
    kustomize,
    notes,
    only,
    parse,
    walk,
)

pytestmark = pytest.mark.process

OWN, DIGEST = "registry.example.com/infra/multus-entrypoint", f"sha256:{'0' * 64}"
NETWORKS = "/etc/cni/multus/net.d"


def schema():
    return json.loads((CHART / "values.schema.json").read_text())


def daemon_set(**values):
    return only(charted(values), "DaemonSet")


def pod(**values):
    return daemon_set(**values)["spec"]["template"]["spec"]


def args(**values):
    (container,) = pod(**values)["containers"]
    return container["args"]


# ---- each value reaches its place ----

TEMPLATE = ("spec", "template")
SPEC = (*TEMPLATE, "spec")
CONTAINER = (*SPEC, "containers", 0)
TOKEN = (*SPEC, "volumes", -1, "projected", "sources", 0, "serviceAccountToken", "expirationSeconds")
VALUES = [
    ({"image": {"repository": OWN, "tag": "v9"}}, (*CONTAINER, "image"), f"{OWN}:v9"),
    ({"image": {"repository": OWN, "digest": DIGEST}}, (*CONTAINER, "image"), f"{OWN}@{DIGEST}"),
    (
        {"image": {"digest": DIGEST, "tag": "v9"}},
        (*CONTAINER, "image"),
        f"ghcr.io/multus-entrypoint/multus-entrypoint@{DIGEST}",
    ),
    ({"image": {"pullPolicy": "Always"}}, (*CONTAINER, "imagePullPolicy"), "Always"),
    ({"imagePullSecrets": [{"name": "registry"}]}, (*SPEC, "imagePullSecrets"), [{"name": "registry"}]),
    ({"extraArgs": ["--dry-run"]}, (*CONTAINER, "args", -1), "--dry-run"),
    ({"extraEnv": [{"name": "A", "value": "b"}]}, (*CONTAINER, "env", -1), {"name": "A", "value": "b"}),
    ({"extraVolumes": [{"name": "x", "emptyDir": {}}]}, (*SPEC, "volumes", -1), {"name": "x", "emptyDir": {}}),
    (
        {"extraVolumeMounts": [{"name": "x", "mountPath": f"/host{NETWORKS}", "readOnly": True}]},
        (*CONTAINER, "volumeMounts", -1),
        {"name": "x", "mountPath": f"/host{NETWORKS}", "readOnly": True},
    ),
    ({"tokenExpirationSeconds": 600}, TOKEN, 600),
    ({"resources": {"limits": {"memory": "1Gi"}}}, (*CONTAINER, "resources", "limits", "memory"), "1Gi"),
    ({"nodeSelector": {"pool": "blue"}}, (*SPEC, "nodeSelector"), {"kubernetes.io/os": "linux", "pool": "blue"}),
    ({"tolerations": [{"key": "a"}]}, (*SPEC, "tolerations"), [{"key": "a"}]),
    ({"affinity": {"podAffinity": {}}}, (*SPEC, "affinity"), {"podAffinity": {}}),
    ({"updateStrategy": {"type": "OnDelete"}}, ("spec", "updateStrategy", "type"), "OnDelete"),
    ({"podAnnotations": {"note": "x"}}, (*TEMPLATE, "metadata", "annotations"), {"note": "x"}),
    (
        {"podLabels": {"team": "net", "name": "not this one"}},
        (*TEMPLATE, "metadata", "labels"),
        {"team": "net", "tier": "node", "app": "multus", "name": "multus"},
    ),
    (
        {"seLinuxOptions": {"type": "super_t", "level": "s0"}},
        (*SPEC, "securityContext", "seLinuxOptions"),
        {"type": "super_t", "level": "s0"},
    ),
    ({"seLinuxOptions": None}, (*SPEC, "securityContext"), {"seccompProfile": {"type": "RuntimeDefault"}}),
]
ELSEWHERE = {
    *("platform", "hostPaths", "flags", "plugins", "rbac", "errandsAccount", "staticConfiguration"),
    *("securityContext", "readinessProbe"),
    *("admissionPolicy", "global"),  # tests/test_policy.py, and Helm's own
}
"""Values that have tests of their own."""


@pytest.mark.parametrize(("values", "path", "expected"), VALUES, ids=lambda value: str(value)[:40])
def test_a_value_reaches_its_place(values, path, expected):
    assert functools.reduce(operator.getitem, path, daemon_set(**values)) == expected


@pytest.mark.parametrize(
    ("name", "given"),
    [("securityContext", {"appArmorProfile": {"type": "Unconfined"}}), ("readinessProbe", {"periodSeconds": 3})],
)
def test_one_entry_can_be_given_and_the_others_stay(name, given):
    (before,), (after,) = pod()["containers"], pod(**{name: given})["containers"]
    assert after[name] == {**before[name], **given} != before[name]


def test_a_static_configuration_reaches_the_config_map():
    assert only(charted({"staticConfiguration": "{}"}), "ConfigMap")["data"] == {"cni-conf.json": "{}\n"}


def test_every_value_of_the_schema_is_tried_and_stands_in_the_values_with_its_default():
    names, text = set(schema()["properties"]), (CHART / "values.yaml").read_text()
    assert {name for values, *_ in VALUES for name in values} | ELSEWHERE == names
    assert {name for name in names if not re.search(rf"^{name}:", text, re.MULTILINE)} == {"global"}


MOUNTED = {
    *("plugin-bin-dir", "cni-conf-dir", "cni-bin-dir", "multus-autoconfig-dir", "ready-file", "service-account-dir"),
}
"""Flags that follow from what the chart mounts where."""


def test_the_chart_takes_every_flag_of_the_program():
    flags = {flag.opts[0].removeprefix("--") for flag in ENTRYPOINT if not flag.hidden}
    assert set(schema()["properties"]["flags"]["properties"]) == flags - MOUNTED - {"dry-run"}


def test_a_flag_of_the_chart_is_a_flag_of_the_program():
    flags = {
        "cni-version": "0.3.1",
        "namespace-isolation": True,
        "multus-log-to-stderr": False,
        "wait-timeout": 1000000,
        "global-namespaces": "",
        "multus-log-file": None,
        "multus-conf-patch": {"logOptions": {"maxSize": 10}},
        "multus-master-cni-exclude": ["200-*", "87-*"],
    }
    assert args(flags=flags)[5:] == [
        "--cni-version=0.3.1",
        '--multus-conf-patch={"logOptions":{"maxSize":10}}',
        "--multus-log-to-stderr=false",
        "--multus-master-cni-exclude=200-*",
        "--multus-master-cni-exclude=87-*",
        "--namespace-isolation=true",
        "--wait-timeout=1000000",
    ]


@pytest.mark.parametrize("level", ["debug", "Verbose", "ERROR", "panic", "", None])
def test_a_log_level_that_the_program_takes_is_taken(level):
    assert pod(flags={"multus-log-level": level})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"platfrom": "k3s"}, "'platfrom' not allowed"),
        ({"platform": "k8s"}, "/platform"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"image": {"repository": OWN}}, "set image.tag or image.digest"),
        ({"flags": {"cni-vers": "1.0.0"}}, "'cni-vers' not allowed"),
        ({"flags": {"namespace-isolation": "maybe"}}, "namespace-isolation"),
        ({"flags": {"cni-conf-dir": "/elsewhere"}}, "'cni-conf-dir' not allowed"),
        ({"flags": {"multus-log-level": "warning"}}, "multus-log-level"),
        ({"flags": {"multus-log-level": "debugg"}}, "multus-log-level"),
        ({"flags": {"cni-version": "1.0"}}, "cni-version"),
        ({"flags": {"cni-version": "0.3.9"}}, "cni-version"),
        ({"flags": {"startup-taint": "a b"}}, "startup-taint"),
        ({"flags": {"repair-pods": "remove"}}, "repair-pods"),
        ({"flags": {"log-format": "xml"}}, "log-format"),
        ({"hostPaths": {"root": "/a", "confDir": "/a/net.d", "binDir": "/b"}}, "/b is not below it"),
    ],
    ids=str,
)
def test_what_the_chart_or_the_program_would_refuse_is_refused(values, message):
    with pytest.raises(helm.HelmError, match=re.escape(message)):
        charted(values)


# ---- and none reaches further ----

INJECTED = "x\n" + "".join(f"{' ' * indent}injected: here\n" for indent in range(0, 22, 2)) + "\u0085injected: here\n"
"""At one of these depths a value that is not quoted would become a key of its own."""


def strings(node, path=()):
    """Yield the path of every place of the schema that takes text, with what must stand around it."""
    kinds = node.get("type", "enum" if "enum" in node else "object")
    if "string" in kinds or kinds == "enum":
        yield path
    for name, inner in node.get("properties", {}).items():
        yield from strings(inner, (*path, name))
    if isinstance(node.get("additionalProperties"), dict):
        yield from strings(node["additionalProperties"], (*path, "key"))
    if "items" in node:
        yield from strings(node["items"], (*path, 0))
    if kinds in ("object", "array") and not {"properties", "items", "additionalProperties"} & set(node):
        yield (*path, *([0] if kinds == "array" else []), "anything")


def nested(path, value):
    for step in reversed(path):
        value = [value] if step == 0 else {step: value}
    return value


def test_no_value_can_add_a_key_to_an_object(tmp_path, monkeypatch):
    """Without the schema, as with `helm --skip-schema-validation`: quoting alone must hold."""
    paths = {path for path in strings(schema()) if path} - {("platform",)}
    assert {("image", "tag"), ("staticConfiguration",), ("plugins", "names", 0)} <= paths
    copied = shutil.copytree(CHART, tmp_path / CHART.name)
    (copied / "values.schema.json").unlink()
    monkeypatch.setattr(reading, "CHART", copied)
    for platform in ("", "microk8s"):
        before = charted({"platform": platform})
        for path in paths:
            values = nested(path, INJECTED)
            for name, more in (("image", {"tag": "v1"}), ("plugins", {"image": "registry.example.com/x:1"})):
                if path[0] == name:
                    values = {name: {**more, **values[name]}}
            try:
                found = charted({"platform": platform, **values})
            except helm.HelmError:
                continue  # it is refused, which is as well
            assert not any("injected" in mapping for mapping in walk(found)), path
            assert len(found) == len(before), path


# ---- where the runtime's directories are ----

CURRENT = {"root": "/data/rke", "confDir": "/data/rke/current/net.d", "binDir": "/data/rke/current/bin"}


@pytest.mark.parametrize(
    ("values", "volumes", "flags"),
    [
        (
            {"platform": "k3s", "hostPaths": {"confDir": "/data/net.d"}},
            ["/data/net.d", "/var/lib/rancher/k3s/data/cni"],
            ["--multus-kubeconfig-file-host=/data/net.d/multus.d/multus.kubeconfig"],
        ),
        ({"platform": "microk8s", "hostPaths": {"confDir": "/a", "binDir": "/b"}}, ["/a", "/b"], []),
        (
            {"hostPaths": CURRENT},
            ["/data/rke"],  # above a link that may change
            [
                "--multus-autoconfig-dir=/host/data/rke/current/net.d",
                "--cni-conf-dir=/host/data/rke/current/net.d",
                "--cni-bin-dir=/host/data/rke/current/bin",
            ],
        ),
    ],
    ids=str,
)
def test_directories_of_ones_own_win_over_those_of_the_platform(values, volumes, flags):
    found = pod(**values)
    assert [volume["hostPath"]["path"] for volume in found["volumes"] if "hostPath" in volume] == volumes
    assert set(flags) <= set(found["containers"][0]["args"])
    if values["hostPaths"] == CURRENT:
        assert found["containers"][0]["volumeMounts"][0] == {"name": "cni", "mountPath": "/host/data/rke"}


def test_crio_gets_the_networks_own_name():
    assert "--override-network-name=true" in args(platform="crio")
    assert "--override-network-name=true" not in args()


@pytest.mark.parametrize(("wanted", "mounted"), [(True, True), (False, False), (None, False)])
def test_the_system_bus_is_mounted_where_crio_is_restarted_and_nowhere_else(wanted, mounted):
    found = pod(platform="crio", flags={"restart-crio": wanted})
    assert ("dbus" in str(found)) == mounted
    assert ("--restart-crio=true" in found["containers"][0]["args"]) == mounted


def test_on_openshift_the_pod_has_constraints_of_its_own():
    found = charted({"platform": "openshift"})
    constraints = only(found, "SecurityContextConstraints")
    (rule,) = [rule for rule in only(found, "ClusterRole")["rules"] if rule["apiGroups"] == ["security.openshift.io"]]
    assert rule["resourceNames"] == [constraints["metadata"]["name"]]
    spec = only(found, "DaemonSet")["spec"]["template"]["spec"]
    context = spec["containers"][0]["securityContext"]
    assert constraints["allowPrivilegedContainer"] is context["privileged"] is False
    assert constraints["allowedCapabilities"] == context["capabilities"]["add"]
    assert constraints["requiredDropCapabilities"] == context["capabilities"]["drop"]
    kinds = {next(key for key in volume if key != "name") for volume in spec["volumes"]}
    assert kinds == set(constraints["volumes"])
    assert not [each for each in charted({}) if each["kind"] == "SecurityContextConstraints"]


# ---- the chart and the components are one ----


def with_components(tmp_path, base, *names, more=""):
    """Return what a kustomization of one's own makes of a base and components, with all that a # holds off."""
    shutil.copytree(DEPLOYMENTS, tmp_path / "deployments")
    for path in tmp_path.glob("deployments/components/*/*.yml"):
        path.write_text(reading._text(path, switched_on=True))
    own = tmp_path / "own"
    own.mkdir()
    components = ", ".join(f"../deployments/components/{name}" for name in names)
    (own / "kustomization.yaml").write_text(f"resources: [../deployments/{base}]\ncomponents: [{components}]\n{more}")
    return parse(kustomize(own))


def test_plugins_come_from_an_image_by_way_of_a_volume_that_the_installer_only_reads(tmp_path):
    found = pod(plugins={"image": "registry.example.com/cni@sha256:" + "0" * 64, "names": ["macvlan", "ipvlan"]})
    (copies,), (installs,) = found["initContainers"], found["containers"]
    assert copies["command"] == ["/bin/sh", "-c", "cp /opt/cni/bin/macvlan /opt/cni/bin/ipvlan /plugins/"]
    assert copies["volumeMounts"] == [{"name": "plugins", "mountPath": "/plugins"}]
    assert {"name": "plugins", "mountPath": "/plugins", "readOnly": True} in installs["volumeMounts"]
    assert "--plugin-bin-dir=/plugins" in installs["args"]

    image = "images: [{name: cni-plugins, newName: registry.example.com/cni, newTag: v1}]\n"
    component = with_components(tmp_path, "talos", "plugins", "policy", more=image)
    both = [
        only(component, "DaemonSet")["spec"]["template"]["spec"],
        pod(platform="talos", plugins={"image": "registry.example.com/cni:v1"}),
    ]
    for each in both:
        each["volumes"].sort(key=lambda volume: volume["name"])
        each["containers"][0]["volumeMounts"].sort(key=lambda mount: mount["name"])
    assert both[0] == both[1]
    assert only(component, "ValidatingAdmissionPolicy")


RIGHTS = {"flags": {"startup-taint": "multus-cni.io/not-ready", "repair-pods": "delete"}, "rbac": {"check": True}}


def roles(found):
    """Return what each ClusterRole grants."""
    return {
        document["metadata"]["name"]: {
            (resource, verb) for rule in document["rules"] for resource in rule["resources"] for verb in rule["verbs"]
        }
        for document in found
        if document["kind"] == "ClusterRole"
    }


def test_the_errands_get_an_account_of_their_own_and_multus_keeps_none_of_their_rights():
    one, bare = roles(charted(RIGHTS)), roles(charted({}))
    two = roles(charted({**RIGHTS, "errandsAccount": {"create": True}}))
    assert set(one) == {"multus"}
    assert two["multus"] == bare["multus"]
    needed = {("pods", "get"), ("network-attachment-definitions", "get"), ("events", "create")}
    assert two["multus-errands"] >= one["multus"] - bare["multus"] | needed
    assert ("pods/status", "update") not in two["multus-errands"]


def test_the_account_of_the_errands_is_that_of_the_component(tmp_path):
    component = with_components(tmp_path, "base", "errands-account")
    chart = charted({**RIGHTS, "errandsAccount": {"create": True}, "admissionPolicy": False})
    assert roles(component) == roles(chart)
    both = []
    for found in (component, chart):
        spec = only(found, "DaemonSet")["spec"]["template"]["spec"]
        (volume,) = [one for one in spec["volumes"] if one["name"] == "errands"]
        assert volume["secret"]["secretName"] == "multus-errands"
        assert volume["secret"]["items"] == [{"key": "token", "path": "token"}]
        assert volume["secret"]["defaultMode"] == 0o400
        (container,) = spec["containers"]
        assert {"name": "ERRANDS_ACCOUNT_DIR", "value": "/var/run/secrets/errands"} in container["env"]
        mount = {"name": "errands", "mountPath": "/var/run/secrets/errands", "readOnly": True}
        assert mount in container["volumeMounts"]
        ours = [one for one in found if one["metadata"]["name"] == "multus-errands" and one["kind"] != "ClusterRole"]
        both.append({one["kind"]: one for one in ours})
    assert set(both[0]) == {"ServiceAccount", "Secret", "ClusterRoleBinding"}
    assert both[0] == both[1]


# ---- the chart as a chart ----


@pytest.mark.parametrize("platform", ["", "k3s"])
def test_the_notes_of_the_chart_take_multus_off_again_with_the_image_that_was_installed(platform):
    text = notes({"platform": platform, "image": {"repository": OWN, "tag": "v9"}})
    said = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    kubectl = Path(sys.executable).parent / "kubectl"
    apply = said[2].removesuffix(" | kubectl apply -f -").replace("kubectl", f"'{kubectl}'", 1)
    applied = subprocess.run(["sh", "-c", apply], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    uninstaller = only(parse(applied), "DaemonSet")
    assert {each["image"] for each in containers(uninstaller)} == {f"{OWN}:v9"}
    assert ("/var/lib/rancher/k3s/data/cni" in str(uninstaller)) == bool(platform)
    assert (ROOT / said[4].split()[-1]).exists()
    assert said[5] == "helm -n kube-system uninstall any"


def test_the_notes_of_the_chart_tell_of_directories_of_ones_own():
    assert "/elsewhere/net.d and `cnibin` to /opt/cni/bin" in notes({"hostPaths": {"confDir": "/elsewhere/net.d"}})
    assert "cnibin" not in notes({})


def test_helm_finds_nothing_to_complain_about():
    report = helm.chart.lint(CHART, strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_the_chart_has_the_version_of_the_package_and_every_platform():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == entrypoint.__version__
    assert sorted(schema()["properties"]["platform"]["enum"]) == sorted({"", *PLATFORMS} - {"base"})


def test_the_values_on_the_page_of_the_chart_are_taken():
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (CHART / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "--multus-log-level=verbose" in args(**yaml.safe_load(text))

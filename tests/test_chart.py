"""The Helm chart's values: each one reaches its place, and none reaches further."""

from __future__ import annotations

import copy
import json
import re
import shutil

import pytest

from tests.manifests import CHART, PLATFORMS, charted, containers, only

pytestmark = pytest.mark.process

INJECTED = "x\n" + "".join(f"{' ' * indent}injected: here\n" for indent in range(0, 22, 2)) + "\u0085injected: here\n"
"""At one of these depths a value that is not quoted would become a key of its own."""


def schema():
    return json.loads((CHART / "values.schema.json").read_text())


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


def keys(value):
    if isinstance(value, dict):
        yield from value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(member)


def pod(**values):
    return only(charted(values), "DaemonSet")["spec"]["template"]["spec"]


def refused(values):
    helm = pytest.importorskip("helm_python")
    with pytest.raises(helm.HelmError) as caught:
        charted(values)
    return str(caught.value)


PATHS = sorted({path for path in strings(schema()) if path}, key=str)


def test_every_value_of_the_chart_is_tried_below():
    assert ("image", "tag") in PATHS
    assert ("staticConfiguration",) in PATHS
    assert ("plugins", "names", 0) in PATHS
    assert len(PATHS) > 40


@pytest.fixture(scope="module")
def without_schema(tmp_path_factory):
    """The chart as `helm --skip-schema-validation` has it: quoting alone must hold."""
    directory = tmp_path_factory.mktemp("chart") / CHART.name
    shutil.copytree(CHART, directory)
    (directory / "values.schema.json").unlink()
    return directory


def test_no_value_can_add_a_key_to_an_object(without_schema, monkeypatch):
    import tests.manifests as reading

    pytest.importorskip("helm_python")
    monkeypatch.setattr(reading, "CHART", without_schema)
    for platform in ("", "microk8s"):
        before = charted({"platform": platform})
        for path in PATHS:
            if path == ("platform",):
                continue
            values = nested(path, INJECTED)
            for name, more in (("image", {"tag": "v1"}), ("plugins", {"image": "registry.example.com/x:1"})):
                if path[0] == name:
                    values = {name: {**more, **values[name]}}
            values.setdefault("platform", platform)
            try:
                found = charted(values)
            except pytest.importorskip("helm_python").HelmError:
                continue  # it is refused, which is as well
            assert "injected" not in set(keys(found)), path
            assert len(found) == len(before), path


ANOTHER = {
    ("platform",): "k3s",
    ("image", "digest"): f"sha256:{'0' * 64}",
    ("image", "pullPolicy"): "Always",
    ("admissionPolicy",): False,
    ("flags", "cni-version"): "1.0.0",
    ("flags", "multus-log-level"): "debug",
    ("flags", "repair-pods"): "report",
    ("flags", "startup-taint"): "example.com/x",
    ("flags", "log-format"): "json",
    ("hostPaths", "root"): "/etc",
    ("plugins",): {"image": "registry.example.com/x:1", "names": ["a"], "directory": "/elsewhere"},
    ("tokenExpirationSeconds",): 600,
    ("seLinuxOptions", "type"): "super_t",
    ("extraVolumes",): [{"name": "x", "emptyDir": {}}],
    ("extraVolumeMounts",): [{"name": "ready", "mountPath": "/x"}],
}
"""A value that is not the default, where the type does not say one."""
SAMPLES = {"boolean": True, "integer": 7, "string": "/x", "array": ["x"], "object": {"x": "y"}}


def leaves(node, path=()):
    """Yield each value of the schema that can be given by itself, with its type."""
    if path in ANOTHER or not isinstance(node.get("properties"), dict):
        yield path, node
        return
    for name, inner in node["properties"].items():
        yield from leaves(inner, (*path, name))


def test_every_value_has_an_effect():
    """With what it needs beside it; `global` is Helm's own."""
    beside = {("hostPaths", "root"): {"hostPaths": {"confDir": "/etc/a", "binDir": "/etc/b"}}}
    needed = {("staticConfiguration",): "{}", ("image", "repository"): "ghcr.io/other", ("image", "tag"): "v9"}
    for path, node in leaves(schema()):
        if path == ("global",):
            continue
        kind = node.get("type")
        kind = kind if isinstance(kind, str) else next((one for one in kind or () if one != "null"), None)
        value = ANOTHER.get(path, needed.get(path, SAMPLES.get(kind)))
        if kind == "array" and path not in ANOTHER and node["items"].get("type") == "object":
            value = [{"name": "x"}]
        if path == ("readinessProbe", "successThreshold"):
            value = 2
        before = copy.deepcopy(beside.get(path, {"image": {"tag": "v1"}} if path[0] == "image" else {}))
        after = copy.deepcopy(before)
        inner = after
        for step in path[:-1]:
            inner = inner.setdefault(step, {})
        inner[path[-1]] = value
        assert charted(after) != charted(before), f"{path}={value!r} changes nothing"


@pytest.mark.parametrize("platform", sorted({"", *PLATFORMS} - {"base"}))
def test_every_platform_renders(platform):
    assert containers(only(charted({"platform": platform}), "DaemonSet"))


def test_every_value_that_the_schema_has_stands_in_the_values_with_its_default():
    text = (CHART / "values.yaml").read_text()
    for name in set(schema()["properties"]) - {"global"}:
        assert re.search(rf"^{name}:", text, re.MULTILINE), name


def test_a_repository_of_ones_own_needs_a_tag_or_a_digest():
    own = "registry.example.com/infra/multus-entrypoint"
    assert "set image.tag or image.digest" in refused({"image": {"repository": own}})
    assert pod(image={"repository": own, "tag": "v9"})["containers"][0]["image"] == f"{own}:v9"
    digest = f"sha256:{'0' * 64}"
    assert pod(image={"repository": own, "digest": digest})["containers"][0]["image"] == f"{own}@{digest}"


@pytest.mark.parametrize("level", ["debug", "Verbose", "ERROR", "panic", "", None])
def test_a_log_level_that_the_program_takes_is_taken(level):
    assert pod(flags={"multus-log-level": level})


@pytest.mark.parametrize(
    "flags",
    [
        {"multus-log-level": "warning"},
        {"multus-log-level": "debugg"},
        {"cni-version": "1.0"},
        {"cni-version": "0.3.9"},
        {"startup-taint": "a b"},
        {"repair-pods": "remove"},
        {"log-format": "xml"},
    ],
    ids=str,
)
def test_what_the_program_would_refuse_does_not_pass_the_schema(flags):
    (name,) = flags
    assert name in refused({"flags": flags})


def test_the_selinux_type_is_a_value():
    assert pod(seLinuxOptions={"type": "super_t", "level": "s0"})["securityContext"]["seLinuxOptions"] == {
        "type": "super_t",
        "level": "s0",
    }
    assert pod(seLinuxOptions=None)["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}


def test_one_entry_of_the_security_context_can_be_given_and_the_others_stay():
    before = pod()["containers"][0]["securityContext"]
    changed = pod(securityContext={"readOnlyRootFilesystem": False, "appArmorProfile": {"type": "Unconfined"}})
    assert changed["containers"][0]["securityContext"] == {
        **before,
        "readOnlyRootFilesystem": False,
        "appArmorProfile": {"type": "Unconfined"},
    }


def test_the_probe_asks_as_often_as_its_values_say():
    before, after = (
        found["containers"][0]["readinessProbe"] for found in (pod(), pod(readinessProbe={"periodSeconds": 3}))
    )
    assert before["periodSeconds"] == 10
    assert after == {**before, "periodSeconds": 3}


def test_plugins_come_from_an_image_by_way_of_a_volume_that_the_installer_only_reads():
    found = pod(plugins={"image": "registry.example.com/cni@sha256:" + "0" * 64, "names": ["macvlan", "ipvlan"]})
    (copies,), (installs,) = found["initContainers"], found["containers"]
    assert copies["command"] == ["/bin/sh", "-c", "cp /opt/cni/bin/macvlan /opt/cni/bin/ipvlan /plugins/"]
    assert copies["volumeMounts"] == [{"name": "plugins", "mountPath": "/plugins"}]
    assert {"name": "plugins", "mountPath": "/plugins", "readOnly": True} in installs["volumeMounts"]
    assert "--plugin-bin-dir=/plugins" in installs["args"]


def test_the_plugins_of_the_chart_are_those_of_the_component(tmp_path):
    """And without any, nothing of it is there: tests/test_manifests.py compares that with the manifest."""
    from tests.manifests import DEPLOYMENTS, kustomize, parse

    shutil.copytree(DEPLOYMENTS, tmp_path / "deployments")
    own = tmp_path / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(
        "resources: [../deployments/talos]\ncomponents: [../deployments/components/plugins,"
        " ../deployments/components/policy]\n"
        "images: [{name: cni-plugins, newName: registry.example.com/cni, newTag: v1}]\n"
    )
    with_component = parse(kustomize(own))
    component = only(with_component, "DaemonSet")["spec"]["template"]["spec"]
    chart = pod(platform="talos", plugins={"image": "registry.example.com/cni:v1"})
    for found in (component, chart):
        found["volumes"].sort(key=lambda volume: volume["name"])
        found["containers"][0]["volumeMounts"].sort(key=lambda mount: mount["name"])
    assert component == chart
    assert only(with_component, "ValidatingAdmissionPolicy")


@pytest.mark.parametrize(("wanted", "mounted"), [(True, True), (False, False), (None, False)])
def test_the_system_bus_is_mounted_where_crio_is_restarted_and_nowhere_else(wanted, mounted):
    found = pod(platform="crio", flags={"restart-crio": wanted})
    assert ("dbus" in str(found)) == mounted
    assert ("--restart-crio=true" in found["containers"][0]["args"]) == mounted
    assert "dbus" not in str(pod(platform="crio"))


def test_crio_gets_the_networks_own_name():
    assert "--override-network-name=true" in pod(platform="crio")["containers"][0]["args"]
    assert "--override-network-name=true" not in pod()["containers"][0]["args"]


def test_a_directory_above_both_is_mounted_where_a_link_is_on_the_way():
    paths = {"root": "/data/rke", "confDir": "/data/rke/current/net.d", "binDir": "/data/rke/current/bin"}
    found = pod(hostPaths=paths)
    assert [volume["hostPath"] for volume in found["volumes"] if "hostPath" in volume] == [
        {"path": "/data/rke", "type": "Directory"}
    ]
    (container,) = found["containers"]
    assert container["volumeMounts"][0] == {"name": "cni", "mountPath": "/host/data/rke"}
    assert container["args"][1:4] == [
        "--multus-autoconfig-dir=/host/data/rke/current/net.d",
        "--cni-conf-dir=/host/data/rke/current/net.d",
        "--cni-bin-dir=/host/data/rke/current/bin",
    ]
    outside = copy.deepcopy(paths) | {"binDir": "/opt/cni/bin"}
    assert "/opt/cni/bin is not below it" in refused({"hostPaths": outside})


def test_directories_of_ones_own_are_mounted_instead_of_the_platforms_root():
    found = pod(platform="microk8s", hostPaths={"confDir": "/a", "binDir": "/b"})
    assert [volume["hostPath"]["path"] for volume in found["volumes"] if "hostPath" in volume] == ["/a", "/b"]


def test_on_openshift_the_pod_has_constraints_of_its_own():
    found = charted({"platform": "openshift"})
    constraints = only(found, "SecurityContextConstraints")
    (rule,) = [rule for rule in only(found, "ClusterRole")["rules"] if rule["apiGroups"] == ["security.openshift.io"]]
    assert rule["resourceNames"] == [constraints["metadata"]["name"]]
    spec = only(found, "DaemonSet")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    context = container["securityContext"]
    assert constraints["allowPrivilegedContainer"] is context["privileged"] is False
    assert constraints["allowedCapabilities"] == context["capabilities"]["add"]
    assert constraints["requiredDropCapabilities"] == context["capabilities"]["drop"]
    kinds = {next(key for key in volume if key != "name") for volume in spec["volumes"]}
    assert kinds == set(constraints["volumes"])
    assert not [each for each in charted({}) if each["kind"] == "SecurityContextConstraints"]


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
    assert two["multus-errands"] >= one["multus"] - bare["multus"] | {
        ("pods", "get"),
        ("network-attachment-definitions", "get"),
        ("events", "create"),
    }
    assert ("pods/status", "update") not in two["multus-errands"]


def test_the_account_of_the_errands_is_that_of_the_component(tmp_path):
    from tests.manifests import DEPLOYMENTS, _text, kustomize, parse

    shutil.copytree(DEPLOYMENTS, tmp_path / "deployments")
    account = tmp_path / "deployments/components/errands-account/errands-account.yml"
    account.write_text(_text(account, switched_on=True))
    own = tmp_path / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(
        "resources: [../deployments/base]\ncomponents: [../deployments/components/errands-account]\n"
    )
    component = parse(kustomize(own))
    chart = charted({**RIGHTS, "errandsAccount": {"create": True}, "admissionPolicy": False})
    assert roles(component) == roles(chart)

    def named(found, kind, name):
        (document,) = [one for one in found if one["kind"] == kind and one["metadata"]["name"] == name]
        return document

    for kind in ("ServiceAccount", "Secret", "ClusterRoleBinding"):
        assert named(component, kind, "multus-errands") == named(chart, kind, "multus-errands")
    for found in (component, chart):
        spec = only(found, "DaemonSet")["spec"]["template"]["spec"]
        (volume,) = [one for one in spec["volumes"] if one["name"] == "errands"]
        assert volume["secret"]["secretName"] == "multus-errands"
        assert volume["secret"]["items"] == [{"key": "token", "path": "token"}]
        assert volume["secret"]["defaultMode"] == 0o400
        (container,) = spec["containers"]
        assert {"name": "ERRANDS_ACCOUNT_DIR", "value": "/var/run/secrets/errands"} in container["env"]
        assert {"name": "errands", "mountPath": "/var/run/secrets/errands", "readOnly": True} in container[
            "volumeMounts"
        ]


def test_further_volumes_are_mounted():
    volume = {"name": "nets", "hostPath": {"path": "/etc/cni/multus/net.d"}}
    mount = {"name": "nets", "mountPath": "/host/etc/cni/multus/net.d", "readOnly": True}
    found = pod(extraVolumes=[volume], extraVolumeMounts=[mount])
    assert found["volumes"][-1] == volume
    assert found["containers"][0]["volumeMounts"][-1] == mount

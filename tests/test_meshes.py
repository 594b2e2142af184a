"""The small installers of `meshes` do what the real ones do; each table is what those write for the same input."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import pytest

from tests.meshes import ISTIO, LINKERD, Ledger, SmallIstio, SmallLinkerd, SmallLinkerdScript, go_format, go_parse
from tests.waiting import until

OURS = {"cniVersion": "0.4.0", "name": "multus-cni-network", "type": "multus", "delegates": [{"mtu": 1500}]}
NETWORK = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}
CHAINED_ISTIO = {key: value for key, value in ISTIO.items() if key != "cniVersion"}
MESHES = [SmallIstio, SmallLinkerd, SmallLinkerdScript]


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


class Node:
    def __init__(self, root):
        self.conf_dir, self.bin_dir = root / "net.d", root / "bin"
        self.conf_dir.mkdir()
        self.bin_dir.mkdir()

    def put(self, name, document, mode=0o600):
        path = self.conf_dir / name
        beside = path.with_name(name + ".new")
        beside.write_text(json.dumps(document))
        beside.chmod(mode)
        return beside.rename(path)

    def get(self, name):
        try:
            return json.loads((self.conf_dir / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def types(self, name):
        document = self.get(name)
        return [plugin["type"] for plugin in document["plugins"]] if document and "plugins" in document else None

    def names(self):
        return sorted(path.name for path in self.conf_dir.iterdir() if path.name.endswith((".conf", ".conflist")))

    @contextlib.contextmanager
    def running(self, kind, **options):
        mesh = kind(self.conf_dir, self.bin_dir, **options)
        mesh.start()
        try:
            yield mesh
        finally:
            if mesh.is_alive():
                mesh.stop(clean_up=False)


# ---- JSON ----


@pytest.mark.parametrize(
    ("document", "written"),
    [
        ({"b": 1, "a": [1.5, {}], "c": []}, '{\n  "a": [\n    1.5,\n    {}\n  ],\n  "b": 1,\n  "c": []\n}'),
        ([9007199254740993, 123456789012345678901], "[\n  9007199254740992,\n  123456789012345680000\n]"),
        ([1e21, 1e-7, -0.0, 1e20], "[\n  1e+21,\n  1e-7,\n  -0,\n  100000000000000000000\n]"),
        ("<&>\u2028ü", '"\\u003c\\u0026\\u003e\\u2028ü"'),
        ([True, None, "\ud800"], '[\n  true,\n  null,\n  "\ufffd"\n]'),
    ],
)
def test_json_comes_out_as_go_writes_it(document, written):
    assert go_format(go_parse(json.dumps(document).encode())) == written


@pytest.mark.parametrize("content", [b"", b"{", b"NaN", b"1e400", b"9" * 400])
def test_what_go_does_not_read_is_an_error(content):
    with pytest.raises(ValueError):
        go_parse(content)


# ---- a single plugin becomes a list ----


@pytest.mark.parametrize(
    ("kind", "version", "chained"),
    [(SmallIstio, "0.3.1", CHAINED_ISTIO), (SmallLinkerd, "0.3.1", LINKERD), (SmallLinkerdScript, "0.3.0", LINKERD)],
)
def test_a_single_plugin_becomes_the_first_of_a_list_with_another_name_and_version(node, kind, version, chained):
    node.put("00-multus.conf", OURS)
    with node.running(kind):
        until(lambda: node.names() == ["00-multus.conflist"])
        first = {key: value for key, value in OURS.items() if key != "cniVersion"}
        assert node.get("00-multus.conflist") == {
            "cniVersion": version,
            "name": "k8s-pod-network",
            "plugins": [first, chained],
        }


@pytest.mark.parametrize(("kind", "mode"), [(SmallIstio, 0o600), (SmallLinkerd, 0o644), (SmallLinkerdScript, 0o644)])
def test_a_list_keeps_its_name_and_version_and_gets_the_plugin_at_its_end(node, kind, mode):
    path = node.put("10-flannel.conflist", NETWORK)
    with node.running(kind) as mesh:
        until(lambda: mesh.type in (node.types(path.name) or []))
        document = node.get(path.name)
        assert (document["name"], document["cniVersion"]) == ("cbr0", "1.0.0")
        assert node.types(path.name) == ["flannel", "portmap", mesh.type]
        until(lambda: path.stat().st_mode & 0o777 == mode)
        assert mesh.writes == {path.name: 1}


# ---- which files, and when ----


def test_istio_takes_the_first_file_and_linkerd_takes_all(node):
    node.put("00-multus.conf", OURS)
    node.put("10-flannel.conflist", NETWORK)
    with node.running(SmallIstio):
        until(lambda: node.names() == ["00-multus.conflist", "10-flannel.conflist"])
        with node.running(SmallLinkerd) as linkerd:
            until(lambda: node.types("00-multus.conflist") == ["multus", "istio-cni", "linkerd-cni"])
            until(lambda: node.types("10-flannel.conflist") == ["flannel", "portmap", "linkerd-cni"])
            assert linkerd.crashes == []


def test_istio_before_1_27_follows_the_first_file_and_later_ones_stay_with_theirs(node):
    node.put("10-flannel.conflist", NETWORK)
    with node.running(SmallIstio, remembers=False) as mesh:
        until(lambda: mesh.writes["10-flannel.conflist"])
        node.put("00-multus.conf", OURS)
        until(lambda: node.types("00-multus.conflist") == ["multus", "istio-cni"])
    with node.running(SmallIstio) as mesh:
        until(lambda: mesh.writes["00-multus.conflist"])
        node.put("00-another.conflist", NETWORK)
        until(mesh.rests)
        assert mesh.writes == {"00-multus.conflist": 1}


@pytest.mark.parametrize("kind", [SmallLinkerd, SmallLinkerdScript])
def test_linkerd_writes_again_what_others_wrote_but_not_what_it_wrote_itself(node, kind):
    path = node.put("00-multus.conflist", NETWORK)
    with node.running(kind) as mesh:
        until(lambda: mesh.writes[path.name] == 1 and mesh.rests())
        document = node.get(path.name)
        node.put(path.name, document)  # the same document in other bytes
        until(lambda: mesh.writes[path.name] == 2 and mesh.rests())
        node.put(path.name, {**document, "plugins": [*document["plugins"], {"type": "another"}]})
        until(lambda: node.types(path.name) == ["flannel", "portmap", "another", mesh.type] and mesh.rests())
        assert mesh.writes == {path.name: 3}


# ---- the end ----


@pytest.mark.parametrize("kind", MESHES)
def test_at_its_end_the_plugin_and_its_binary_go_and_the_rest_stays(node, kind):
    node.put("00-multus.conf", OURS)
    with node.running(kind) as mesh:
        until(lambda: node.types("00-multus.conflist") == ["multus", mesh.type] and len(node.names()) == 1)
        assert mesh.binary.exists()
        mesh.stop()
    assert node.types("00-multus.conflist") == ["multus"]
    assert node.get("00-multus.conflist")["name"] == "k8s-pod-network"
    assert not mesh.binary.exists()


def test_linkerd_undoes_every_file_and_istio_only_its_present_one(node):
    node.put("10-flannel.conflist", NETWORK)
    with node.running(SmallIstio, remembers=False) as istio, node.running(SmallLinkerd) as linkerd:
        until(lambda: len(node.types("10-flannel.conflist") or []) == 4)
        # A list: of a single plugin both would make one, and the slower crash when it is gone.
        node.put("00-multus.conflist", {"cniVersion": "1.0.0", "name": "multus-cni-network", "plugins": [OURS]})
        until(lambda: len(node.types("00-multus.conflist") or []) == 3 and istio.rests() and linkerd.rests())
        istio.stop()
        until(lambda: "istio-cni" not in (node.types("00-multus.conflist") or ["istio-cni"]) and linkerd.rests())
        linkerd.stop()
    assert node.types("00-multus.conflist") == ["multus"]
    assert node.types("10-flannel.conflist") == ["flannel", "portmap", "istio-cni"]


def test_linkerd_empties_a_file_before_it_writes_it_at_its_end(node):
    path = node.put("00-multus.conflist", NETWORK)
    with node.running(SmallLinkerd) as mesh:
        until(lambda: mesh.type in (node.types(path.name) or []))
        inode = path.stat().st_ino
        mesh.lingers = 0.3
        stopping = threading.Thread(target=mesh.stop)
        stopping.start()
        sizes = set()
        while stopping.is_alive():
            sizes.add(path.stat().st_size)
            time.sleep(0.005)
        stopping.join()
        assert 0 in sizes
        assert path.stat().st_ino == inode


# ---- in between ----


def test_istio_has_a_list_under_the_name_of_a_single_plugin_for_a_moment(node):
    node.put("00-multus.conf", OURS)
    with node.running(SmallIstio, lingers=0.3):
        until(lambda: node.types("00-multus.conf") == ["multus", "istio-cni"])
        until(lambda: node.names() == ["00-multus.conflist"])


def test_linkerd_has_both_names_for_a_moment_and_ends_when_the_old_one_is_taken_from_it(node):
    path = node.put("00-multus.conf", OURS)
    with node.running(SmallLinkerd, lingers=0.2) as mesh:
        until(lambda: node.names() == ["00-multus.conf", "00-multus.conflist"])
        path.unlink()
        until(lambda: len(mesh.crashes) == 1)
        until(lambda: mesh.writes["00-multus.conflist"] == 2)  # started again, it writes all files anew
        assert node.types("00-multus.conflist") == ["multus", "linkerd-cni"]


# ---- Istio's own file ----


def test_istios_own_file_is_a_copy_of_the_first_with_its_plugin(node):
    node.put("10-flannel.conflist", NETWORK)
    with node.running(SmallIstio, owned="02-istio-cni.conflist") as mesh:
        until(lambda: node.types("02-istio-cni.conflist") == ["flannel", "portmap", "istio-cni"])
        assert node.types("10-flannel.conflist") == ["flannel", "portmap"]
        until(mesh.rests)
        assert mesh.writes == {"02-istio-cni.conflist": 1}
        mesh.stop()
        assert node.names() == ["10-flannel.conflist"]


def test_istios_own_file_does_not_follow_a_change_inside_a_plugin_of_the_first(node):
    node.put("00-multus.conflist", {"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "multus", "a": 1}]})
    with node.running(SmallIstio, owned="00-istio-cni.conflist") as mesh:
        until(lambda: mesh.writes["00-istio-cni.conflist"])
        node.put("00-multus.conflist", {"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "multus", "a": 2}]})
        until(mesh.rests)
        assert node.get("00-istio-cni.conflist")["plugins"][0]["a"] == 1


# ---- the account ----


def test_the_ledger_tells_the_program_from_the_others(node):
    ledger = Ledger(node.conf_dir, ".multus-entrypoint-")
    path = node.conf_dir / "00-multus.conf"
    names = [".multus-entrypoint-1.tmp", "00-multus.conf.install", ".multus-entrypoint-2.tmp"]
    for name in names:
        beside = node.conf_dir / name
        beside.write_text("{}")
        beside.rename(path)
    assert ledger.program == {"00-multus.conf": 2}
    assert [source for _, _, source in ledger.events] == names
    ledger.forget()
    path.unlink()
    assert ledger.program == {}
    ledger.close()

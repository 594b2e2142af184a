"""Beside service meshes, which chain their plugin behind ours: everybody comes to rest, and no plugin runs twice.

The meshes are the small ones of `tests.meshes`. A scenario is played on several hosts at once: with each kind of mesh,
each CNI version, and with and without `--override-network-name`. RESILIENCE=long plays all combinations.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.meshes import CONVERTED_NAME, Ledger, SmallIstio, SmallLinkerd, SmallLinkerdScript
from tests.process.scratch import FLANNEL, ScratchHost, at_rest, replace
from tests.waiting import until

LONG = os.environ.get("RESILIENCE") == "long"

MASTER = "10-flannel.conflist"
ISTIO = (SmallIstio, {})
OLD_ISTIO = (SmallIstio, {"remembers": False})
LINKERD = (SmallLinkerd, {})
OLD_LINKERD = (SmallLinkerdScript, {})
TOGETHER = {
    "istio": [ISTIO],
    "istio before 1.27": [OLD_ISTIO],
    "linkerd": [LINKERD],
    "linkerd before 1.7": [OLD_LINKERD],
    "istio and linkerd": [ISTIO, LINKERD],
    "istio before 1.27 and linkerd": [OLD_ISTIO, LINKERD],
    "istio and linkerd before 1.7": [ISTIO, OLD_LINKERD],
}
VARIANTS = [
    (meshes, version, override)
    for meshes in TOGETHER
    for version in ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
    for override in (False, True)
]
GROUPS = {meshes: [each for each in VARIANTS if each[0] == meshes] for meshes in TOGETHER}
if not LONG:
    GROUPS = {"every fifth": VARIANTS[::5]}  # each kind of mesh, each version, with and without the flag
LINGER = 0.05
"""Seconds between two steps of a mesh that belong together: as long as a CPU limit holds a process back at most."""
PATIENCE = 5.0
"""Seconds that the program gives a mesh here. Its own times are shorter than a dozen meshes take on a busy machine;
what it does once they are over is in tests/node/test_meshes.py."""


pytestmark = [
    pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"),
    # Each has some 40 inotify instances, of the 128 that a user has.
    pytest.mark.usefixtures("one_at_a_time"),
]


class Scene:
    """A host, the program, meshes, and the account of who wrote what."""

    def __init__(self, root, kinds, version="0.3.1", *, override=False):
        self.host = ScratchHost(root)
        self.host.patience = PATIENCE
        self.version, self.override = version, override
        self.flags = ["--override-network-name"] if override else []
        self.kinds = kinds
        self.meshes = []
        self.program = None
        self._stack = contextlib.ExitStack()
        self._programs = contextlib.ExitStack()
        self.ledger = Ledger(self.host.conf_dir, ".multus-entrypoint-")

    def __enter__(self):
        self._stack.enter_context(self._programs)
        self._stack.callback(self.ledger.close)
        return self

    def __exit__(self, *exception):
        for mesh in self.meshes:
            if mesh.is_alive():
                mesh.stop(clean_up=False)
        return self._stack.__exit__(*exception)

    # ---- who comes and goes ----

    def network(self, **changes):
        self.host.master(MASTER, **{"cniVersion": self.version, **changes})

    def configured(self, **changes):
        """Have the network and then the program, which has done its work."""
        self.network(**changes)
        self.start_program()
        until(self.host.ready.exists)

    def start_meshes(self):
        """Start them side by side.

        Two that linger would take each other's files away, which is not ours to mend. Nor is that mv takes a file away
        before it writes the new one: it does so without a pause.
        """
        lingering = len(self.kinds) == 1 and OLD_LINKERD not in self.kinds
        for kind, options in self.kinds:
            lingers = LINGER if lingering else 0.0
            mesh = kind(self.host.conf_dir, self.host.bin_dir, lingers=lingers, **options)
            mesh.start()
            self.meshes.append(mesh)

    def stop_meshes(self):
        for mesh in self.meshes:
            mesh.stop()
        gone, self.meshes = self.meshes, []
        return gone

    def start_program(self, *flags):
        self._programs.close()
        self.program = self._programs.enter_context(self.host.start(*self.flags, *flags))

    # ---- what is there ----

    def document(self, name="00-multus.conflist"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((self.host.conf_dir / name).read_bytes())
        return None

    def chained(self):
        document = self.document() or {}
        return [plugin["type"] for plugin in document.get("plugins", [])[1:]]

    def multus(self):
        return (self.document() or {"plugins": [{}]})["plugins"][0]

    def delegate(self):
        return self.multus().get("delegates", [{}])[0]

    def runs(self):
        """Return the types of all plugins that run for a pod, of the network and behind Multus."""
        return [plugin["type"] for plugin in self.delegate().get("plugins", [])] + self.chained()

    def has_meshes(self):
        """Say whether a mesh is chained, and each runs; one may have found the network's file to be the first."""
        return self.chained() and {kind.plugin["type"] for kind, _ in self.kinds} <= set(self.runs())

    # ---- rest ----

    def comes_to_rest(self):
        """Wait until nobody moves before somebody else does: no mesh has an event to answer, nor has the program."""

        def rest():
            before = [mesh.rests() for mesh in self.meshes]
            return (
                None not in before
                and (self.program is None or at_rest(self.program))
                and before == [mesh.rests() for mesh in self.meshes]
            )

        until(rest, lambda: f"rest: {self.ledger.events[-40:]}")
        if self.program is not None:
            assert self.program.running()
            until(self.host.ready.exists, what="the ready file")
        for mesh in self.meshes:
            assert mesh.is_alive(), mesh.failure
            assert mesh.crashes == [] or len(self.meshes) > 1

    def account(self):
        """Return how often each of them wrote our configuration since the last account.

        Two meshes may make a list of the same `.conf` at once, which ends one of them. When it is started again it
        writes once more, and another one may answer that write: neither is counted.
        """
        counts = {"program": sum(self.ledger.program.values())}
        ended = sum(len(mesh.crashes) for mesh in self.meshes)
        assert ended <= len(self.meshes), [mesh.crashes for mesh in self.meshes]
        for mesh in self.meshes:
            counts[mesh.type] = mesh.writes["00-multus.conflist"] - ended
            mesh.writes.clear()
            mesh.crashes.clear()
        self.ledger.forget()
        return counts

    def assert_good(self):
        """Assert that pods get the network and each mesh once, under the first name that the runtime reads."""
        types = {kind.plugin["type"] for kind, _ in self.kinds} if self.meshes else set()
        assert self.host.names()[0] == "00-multus.conflist" or not self.chained()
        assert "00-multus.conf" not in self.host.names() or "00-multus.conflist" not in self.host.names()
        if (document := self.document()) is None:
            return
        assert document["plugins"][0]["type"] == "multus"
        # Istio takes its plugin out of the file that it wrote last only, and the old script moves files to and fro.
        types |= {plugin["type"] for plugin in (self.document(MASTER) or FLANNEL)["plugins"]}
        assert sorted(self.runs()) == sorted({"flannel", "portmap", *types}), (self.document(), self.ledger.events)
        assert (self.delegate()["name"], self.delegate()["cniVersion"]) == (FLANNEL["name"], self.version)
        own_name = FLANNEL["name"] if self.override else "multus-cni-network"
        if self.version >= "1.0.0":
            assert (document["name"], document["cniVersion"]) == (own_name, self.version)
        else:
            assert document["name"] in {CONVERTED_NAME, own_name}


IN_SHORT = {"test_multus_comes_first", "test_the_meshes_come_first", "test_multus_is_upgraded"}


def scenario(play):
    """Make a test of what is played on one host for each variant, all at the same time."""

    @pytest.mark.parametrize("variants", GROUPS.values(), ids=GROUPS.keys())
    def test(tmp_path, variants):
        def on_its_host(variant):
            meshes, version, override = variant
            place = tmp_path / f"{meshes} {version} {override}".replace(" ", "-")
            with Scene(place, TOGETHER[meshes], version, override=override) as scene:
                play(scene)

        with ThreadPoolExecutor(len(variants)) as pool:
            list(pool.map(on_its_host, variants))

    test.__name__, test.__doc__ = play.__name__, play.__doc__
    return test if play.__name__ in IN_SHORT else pytest.mark.thorough(test)


def allowed(kinds, *, hooks_come_first=False):
    """Return how often a mesh may write our list until everybody is at rest.

    Twice. Linkerd answers every write of another: with a second mesh, whose plugin the network has as well, once more.
    A second mesh may find that it has, too, when the old script has taken our file away for a moment.
    """
    return 3 if len(kinds) > 1 and (hooks_come_first or OLD_LINKERD in kinds) else 2


def assert_few(counts, most):
    assert counts.pop("program") <= 2, counts
    assert all(count <= most for count in counts.values()), counts


# ---- the order of arrival ----


@scenario
def test_multus_comes_first(scene):
    scene.configured()
    scene.start_meshes()
    until(scene.has_meshes)
    scene.comes_to_rest()
    scene.assert_good()
    assert_few(scene.account(), allowed(scene.kinds))


@scenario
def test_the_meshes_come_first(scene):
    scene.network()
    scene.start_meshes()
    until(lambda: len((scene.document(MASTER) or FLANNEL)["plugins"]) == 2 + len(scene.kinds))
    scene.start_program()
    until(scene.host.ready.exists)
    scene.comes_to_rest()
    if scene.document() is None:  # Istio from 1.27 on stays with the network's own file
        assert scene.kinds == [ISTIO]
    scene.assert_good()
    assert_few(scene.account(), allowed(scene.kinds, hooks_come_first=True))


@scenario
def test_all_come_at_boot(scene):
    scene.start_meshes()
    scene.start_program()
    time.sleep(0.2)
    scene.network()
    until(scene.host.ready.exists)
    scene.comes_to_rest()
    scene.assert_good()
    assert_few(scene.account(), allowed(scene.kinds, hooks_come_first=True))


# ---- later ----


def at_rest_with_meshes(scene):
    scene.configured()
    scene.start_meshes()
    until(scene.has_meshes)
    scene.comes_to_rest()
    scene.account()


@scenario
def test_the_meshes_are_removed(scene):
    at_rest_with_meshes(scene)
    gone = scene.stop_meshes()
    scene.comes_to_rest()
    scene.assert_good()
    assert scene.chained() == []
    assert all(mesh.crashes == [] for mesh in gone)
    assert_few(scene.account(), 0)


@scenario
def test_the_meshes_are_upgraded(scene):
    """Their pods end and new ones start: each takes its plugin out and puts it in again."""
    at_rest_with_meshes(scene)
    scene.stop_meshes()
    scene.start_meshes()
    until(scene.has_meshes)
    scene.comes_to_rest()
    scene.assert_good()
    assert_few(scene.account(), allowed(scene.kinds, hooks_come_first=True))


@scenario
def test_multus_is_upgraded(scene):
    """The same configuration is left alone; another one takes what is chained along, in one write."""
    at_rest_with_meshes(scene)
    chained = sorted(scene.chained())
    scene.program.stop()
    scene.start_program()
    until(scene.host.ready.exists)
    scene.comes_to_rest()
    assert scene.account()["program"] == 0
    scene.start_program("--multus-log-level=debug")
    until(lambda: scene.multus().get("logLevel") == "debug")
    assert sorted(scene.chained()) == chained
    scene.comes_to_rest()
    scene.assert_good()
    counts = scene.account()
    assert counts.pop("program") == 1
    # The old script takes the file away for a moment: another mesh puts itself in again, and is answered.
    most = 2 if len(scene.kinds) > 1 and OLD_LINKERD in scene.kinds else 1
    assert all(count <= most for count in counts.values()), counts


@scenario
def test_multus_is_removed(scene):
    """What it takes away on its way out is the list, although a mesh wrote it last."""
    scene.flags.append("--cleanup-config-on-exit")
    at_rest_with_meshes(scene)
    code = scene.program.stop()
    assert code == 0
    assert not [name for name in scene.host.names() if name.startswith("00-multus")]


@scenario
def test_a_change_of_the_network_is_followed_and_keeps_what_is_chained(scene):
    at_rest_with_meshes(scene)
    scene.network(mtu=1400)
    until(lambda: scene.delegate().get("mtu") == 1400)
    scene.comes_to_rest()
    scene.assert_good()
    assert_few(scene.account(), allowed(scene.kinds))


# ---- in particular ----


@pytest.fixture
def scene(tmp_path):
    with Scene(tmp_path, []) as made:
        yield made


def chain(scene, *plugins, mode=0o644, **level):
    """Turn our configuration into the list that a mesh makes of it."""
    document = json.loads(scene.host.conf.read_bytes())
    document.pop("cniVersion")
    listed = {"cniVersion": "0.3.1", "name": CONVERTED_NAME, **level, "plugins": [document, *plugins]}
    replace(scene.host.conflist, json.dumps(listed, sort_keys=True), mode)
    scene.host.conf.unlink()


def test_a_list_that_begins_with_ours_is_as_it_must_be_whatever_follows_and_whatever_its_mode(scene):
    scene.configured()
    chain(scene, {"type": "anything", "at": 1.5}, mode=0o640)
    before = scene.host.conflist.stat()
    scene.comes_to_rest()
    after = scene.host.conflist.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_mode) == (after.st_ino, after.st_mtime_ns, after.st_mode)
    assert not scene.host.conf.exists()
    outcome = scene.host.run("--dry-run")
    assert outcome.returncode == 0
    assert "00-multus.conf" not in outcome.stdout.replace("00-multus.conflist", "")


def test_numbers_and_characters_that_a_mesh_written_in_go_cannot_keep_are_no_difference(scene):
    plugins = [{"type": "flannel", "big": 9007199254740993, "one": 1.0, "half": "\ud800", "html": "<&>"}]
    scene.kinds = [ISTIO, LINKERD]
    scene.configured(plugins=plugins)
    scene.start_meshes()
    until(lambda: len(scene.chained()) == 2)
    scene.comes_to_rest()
    assert_few(scene.account(), 2)


def test_true_is_not_one(scene):
    """As Python compares, the two are the same; a CNI plugin does not find so."""
    scene.configured(plugins=[{"type": "flannel", "flag": True}])
    chain(scene, {"type": "other"})
    document = scene.document()
    document["plugins"][0]["delegates"][0]["plugins"][0]["flag"] = 1
    replace(scene.host.conflist, json.dumps(document))
    until(lambda: (scene.document() or document)["plugins"][0]["delegates"][0]["plugins"][0]["flag"] is True)
    assert scene.chained() == ["other"]


def test_another_network_under_our_name_is_replaced(scene):
    scene.configured()
    chain(scene, {"type": "other"})
    scene.comes_to_rest()
    replace(scene.host.conflist, json.dumps(FLANNEL))
    scene.comes_to_rest()
    assert scene.host.delegate() == FLANNEL
    assert scene.chained() == []


def test_a_second_multus_behind_ours_is_not_kept(scene):
    scene.configured()
    chain(scene, {"type": "other"})
    scene.comes_to_rest()
    document = scene.document()
    document["plugins"].append({"type": "multus", "delegates": [FLANNEL]})
    replace(scene.host.conflist, json.dumps(document))
    until(lambda: scene.chained() == ["other"])


def test_another_version_of_the_list_is_put_right_and_keeps_what_is_chained(scene):
    """Only the name and the version that a mesh gives to a list that it makes are taken as they are."""
    scene.configured()
    chain(scene, {"type": "other"}, name="multus-cni-network", cniVersion="1.0.0")
    until(lambda: (scene.document() or {}).get("cniVersion") == "0.3.1")
    assert scene.chained() == ["other"]


def test_what_is_chained_and_in_the_network_as_well_is_said_once(scene):
    scene.kinds = [LINKERD]
    scene.network()
    scene.start_meshes()
    until(lambda: len(scene.document(MASTER)["plugins"]) == 3)
    scene.start_program()
    until(scene.host.ready.exists)
    until(lambda: scene.chained() == ["linkerd-cni"])
    scene.comes_to_rest()
    scene.assert_good()
    assert len(scene.program.lines("linkerd-cni", MASTER)) == 1, scene.program.log


def test_two_reference_plugins_with_other_settings_both_stay(scene):
    """A `tuning` behind Multus and another one in the network do different things."""
    tuning = {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}
    scene.configured(plugins=[*FLANNEL["plugins"], tuning])
    chain(scene, {**tuning, "sysctl": {"net.core.somaxconn": "600"}})
    scene.comes_to_rest()
    assert scene.runs() == ["flannel", "portmap", "tuning", "tuning"]
    assert scene.account()["program"] == 1


def test_a_list_that_a_mesh_did_not_come_to_rename_is_put_under_its_right_name(scene):
    """Istio writes a list over `00-multus.conf` and renames it; no runtime reads a list under that name."""
    scene.configured()
    document = json.loads(scene.host.conf.read_bytes())
    document.pop("cniVersion")
    listed = {"cniVersion": "0.3.1", "name": CONVERTED_NAME, "plugins": [document, {"type": "istio-cni"}]}
    replace(scene.host.conf, json.dumps(listed))
    until(lambda: not scene.host.conf.exists())
    assert scene.chained() == ["istio-cni"]
    scene.comes_to_rest()
    assert scene.account()["program"] == 2


def test_a_renamed_master_stays_the_master_when_a_mesh_was_in_it(scene):
    scene.kinds = [LINKERD]
    scene.flags = ["--rename-conf-file"]
    scene.network()
    scene.start_meshes()
    until(lambda: len(scene.document(MASTER)["plugins"]) == 3)
    scene.start_program()
    until(scene.has_meshes)
    scene.comes_to_rest()
    scene.assert_good()
    scene.program.stop()
    scene.start_program()
    scene.comes_to_rest()
    scene.assert_good()
    assert scene.host.names()[1] == MASTER + ".old"
    assert scene.account()["program"] == 2


def test_a_mesh_that_ends_by_sigkill_leaves_its_plugin_and_nobody_writes(scene):
    scene.kinds = [ISTIO, LINKERD]
    at_rest_with_meshes(scene)
    for mesh in scene.meshes:
        mesh.stop(clean_up=False)
    scene.meshes = []
    scene.comes_to_rest()
    assert sorted(scene.chained()) == ["istio-cni", "linkerd-cni"]
    assert scene.account() == {"program": 0}


def test_a_list_of_istio_s_own_before_ours_is_as_good_as_long_as_it_begins_with_ours(scene):
    """With `istioOwnedCNIConfig` Istio copies our configuration once, and not again when ours changes."""
    own = scene.host.conf_dir / "00-istio-cni.conflist"
    scene.kinds, scene.version = [(SmallIstio, {"owned": own.name, "primary": "00-multus.conflist"})], "1.0.0"
    scene.configured()
    scene.start_meshes()
    until(own.exists)
    scene.comes_to_rest()
    assert [plugin["type"] for plugin in scene.document(own.name)["plugins"]] == ["multus", "istio-cni"]
    assert scene.account()["program"] == 1
    scene.network(mtu=1400)
    until(lambda: not scene.host.ready.exists())
    until(lambda: scene.program.lines(own.name, "is a copy"))
    scene.meshes.pop().stop(clean_up=False)
    own.unlink()
    until(scene.host.ready.exists)


def test_what_a_mesh_makes_of_a_static_configuration_stays(scene):
    scene.kinds = [LINKERD]
    static = {"cniVersion": "0.3.1", "name": "n", "type": "multus", "delegates": [FLANNEL]}
    source = scene.host.root / "image/50-multus.conf"
    replace(source, json.dumps(static))
    scene.start_program(f"--multus-conf-file={source}")
    until(scene.host.ready.exists)
    scene.start_meshes()
    until(lambda: not (scene.host.conf_dir / source.name).exists())
    scene.comes_to_rest()
    assert scene.document("50-multus.conflist")["plugins"][1]["type"] == "linkerd-cni"
    assert scene.account()["program"] == 1
    replace(source, json.dumps({**static, "logLevel": "debug"}))
    until(lambda: (scene.document("50-multus.conflist") or {"plugins": [{}]})["plugins"][0].get("logLevel") == "debug")
    scene.comes_to_rest()
    assert scene.document("50-multus.conflist")["plugins"][1]["type"] == "linkerd-cni"
    assert scene.account()["program"] == 1
    assert not (scene.host.conf_dir / source.name).exists()


def test_uninstall_removes_the_list(scene):
    scene.kinds = [ISTIO]
    at_rest_with_meshes(scene)
    scene.program.stop(signal.SIGKILL)
    scene._programs.close()
    scene.program = None
    for mesh in scene.meshes:
        mesh.stop(clean_up=False)
    command = scene.host.command("--force")
    command.insert(3, "uninstall")
    outcome = subprocess.run(command, env=scene.host.environment(), cwd=scene.host.root, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert not [name for name in scene.host.names() if name.startswith("00-multus")]

"""The verdict against a model of what libcni and containerd do with a configuration directory."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entrypoint.host import Host
from entrypoint.node import Memory
from entrypoint.plan import decide
from tests.node import FLANNEL, scratch, settings_for

# ---- the model: libcni/conf.go and containerd's go-cni, in the words of this test ----


class CannotLoadError(Exception):
    pass


def loaded(directory):
    """Return the list of plugin types that containerd would run for a pod; it stops at the first file."""
    files = [
        path for path in directory.iterdir() if path.suffix in {".conf", ".conflist", ".json"} and not is_dir(path)
    ]
    for path in sorted(files, key=lambda each: each.name.encode()):
        try:
            document = json.loads(path.read_bytes())
        except (ValueError, OSError) as error:
            raise CannotLoadError(path) from error
        if not isinstance(document, dict) or not isinstance(document.get("name"), str):
            raise CannotLoadError(path)
        if path.suffix == ".conflist":
            plugins = document.get("plugins")
            if not isinstance(plugins, list) or not plugins:
                raise CannotLoadError(path)
        else:
            plugins = [document]
        if not all(isinstance(each, dict) and isinstance(each.get("type"), str) and each["type"] for each in plugins):
            raise CannotLoadError(path)
        return [each["type"] for each in plugins]
    raise CannotLoadError("nothing is there")


def is_dir(path):
    return path.is_dir() and not path.is_symlink()


def works(directory, bin_dir):
    """Say whether a pod would get its networks from Multus: the plugin is called, and is there."""
    try:
        types = loaded(directory)
    except CannotLoadError:
        return False
    program = bin_dir / types[0]
    kubeconfig = directory / "multus.d/multus.kubeconfig"
    return types[0] == "multus" and program.is_file() and bool(program.stat().st_mode & 0o111) and kubeconfig.is_file()


# ---- random nodes ----

MULTUS = json.dumps({"cniVersion": "0.3.1", "name": "m", "type": "multus", "delegates": []}).encode()
MULTUS_LIST = json.dumps({"cniVersion": "1.0.0", "name": "m", "plugins": [{"type": "multus"}]}).encode()
BRIDGE = b'{"cniVersion": "0.3.1", "name": "b", "type": "bridge"}'
names = st.sampled_from(
    [
        "00-a.conf",
        "00-multus.conf",
        "00-multus.conflist",
        "00-multus.json",
        "00-n.json",
        "05-b.conflist",
        "10-c.conf",
        "10-flannel.conflist",
        "70-multus.conf",
        "99-loopback.conf",
        ".conf",
        "01-README",
        "00-a.conf.bak",
    ]
)
contents = st.sampled_from(
    [
        FLANNEL,
        BRIDGE,
        MULTUS,
        MULTUS_LIST,
        b"",
        b"{",
        b"[]",
        b'{"name": "x"}',
        b'{"name": "x", "plugins": []}',
        b'{"cniVersion": "0.3.1", "name": "lo", "type": "loopback"}',
        b'{"cniVersion": "1.0.0", "name": "i", "plugins": [{"type": "istio-cni"}]}',
        None,  # a directory
    ]
)
directories = st.dictionaries(names, contents, max_size=5)
modes = st.sampled_from(
    [
        (),
        ("--cni-version=1.0.0",),
        ("--rename-conf-file",),
        ("--cleanup-config-on-exit",),
        ("--skip-multus-binary-copy",),
        ("--multus-master-cni-file-name=10-flannel.conflist",),
        ("--multus-master-cni-file-name=00-a.conf",),
        ("--multus-conf-file={root}/static/00-multus.conf",),
        ("--multus-conf-file={root}/static/70-multus.conf",),
        ("--multus-conf-file={root}/static/00-multus.cfg",),
        ("--multus-conf-file={root}/static/00-multus.conflist",),
    ]
)
binaries = st.sampled_from([None, 0o755, 0o644])
sources = st.sampled_from([0o755, 0o755, 0o644])


def put(directory, files):
    for name, content in files.items():
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            continue
        path.unlink(missing_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)


def settle(host, wanted, memory):
    """Do passes, as the loop does, until one has nothing to do; return its plan and the memory."""
    for _ in range(6):
        plan = decide(wanted, host.observe().settled(), memory)
        memory = plan.memory
        if any(problem.fatal for problem in plan.problems) or not plan.steps:
            return plan, memory
        for step in plan.steps:
            host.apply(step)
    raise AssertionError("it does not come to rest")


@given(directories, directories, modes, binaries, sources, contents.filter(lambda content: content is not None))
@hypothesis_settings(max_examples=400, deadline=None)
def test_the_node_is_configured_exactly_when_a_pod_would_get_its_networks(
    tmp_path_factory, before, later, mode, binary, source, static
):
    root = scratch(tmp_path_factory.mktemp("node"))
    (root / "static").mkdir()
    for name in ("00-multus.conf", "70-multus.conf", "00-multus.cfg", "00-multus.conflist"):
        (root / "static" / name).write_bytes(static)
    (root / "src/multus").chmod(source)
    if binary is not None:
        (root / "bin/multus").write_bytes(b"somebody's")
        (root / "bin/multus").chmod(binary)
    put(root / "net.d", before)
    wanted = settings_for(root, *(flag.format(root=root) for flag in mode))
    host, memory = Host(wanted), Memory(started=0.0)
    memory = memory._replace(started=host.observe().now)
    for files in ({}, later):
        put(root / "net.d", files)
        plan, memory = settle(host, wanted, memory)
        if any(problem.fatal for problem in plan.problems):
            return  # it ends with exit code 1, and no pod of the DaemonSet is ready
        if plan.satisfied:
            assert works(root / "net.d", root / "bin"), plan
        elif works(root / "net.d", root / "bin"):
            # Not configured although pods would get networks: only for another configuration than the wanted one.
            assert plan.problems or plan.waiting, plan


@pytest.mark.parametrize(
    ("names", "ours", "overtaken"),
    [
        (["00-multus.conf", "10-x.conf"], "00-multus.conf", False),
        (["00-calico.conflist", "00-multus.conf"], "00-multus.conf", True),
        (["00-a.json", "00-multus.conf"], "00-multus.conf", True),
        ([".conf", "00-multus.conf"], "00-multus.conf", True),
        (["00-a.conf.bak", "00-a.cfg", "00-multus.conf"], "00-multus.conf", False),
        (["00-multus.conf", "00-multus.conflist"], "00-multus.conflist", True),
    ],
)
def test_what_sorts_before_ours_is_read_first(names, ours, overtaken):
    from entrypoint import verdict

    assert (verdict.overtaken(Path("/d"), names, ours) is not None) is overtaken

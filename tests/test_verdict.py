"""The verdict against a model of what libcni and containerd do with a configuration directory."""

from pathlib import Path

import pytest
from entrypoint.node.host import Host, StepError
from entrypoint.node.plan import decide
from entrypoint.node.values import Memory
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.node import scratch, settings_for
from tests.runtime import CONTENTS, MODES, NAMES, STATIC, put, works

contents = st.sampled_from([each for each in CONTENTS if each is not None])
directories = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(CONTENTS), max_size=5)
binaries = st.sampled_from([None, 0o755, 0o644])
sources = st.sampled_from([0o755, 0o755, 0o644])


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


@given(directories, directories, st.sampled_from(MODES), binaries, sources, contents)
@hypothesis_settings(max_examples=400)
def test_the_node_is_configured_exactly_when_a_pod_would_get_its_networks(
    tmp_path_factory, before, later, mode, binary, source, static
):
    root = scratch(tmp_path_factory.mktemp("node"))
    (root / "static").mkdir()
    for name in STATIC:
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
        try:
            plan, memory = settle(host, wanted, memory)
        except StepError:
            return  # a directory stands where the file must be: the program is not ready, and says so
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
        (["00-multus.cfg", "10-x.conf"], "00-multus.cfg", False),  # no runtime reads ours, and that is said elsewhere
    ],
)
def test_what_sorts_before_ours_is_read_first(names, ours, overtaken):
    from entrypoint.node import verdict

    assert (verdict.overtaken(Path("/d"), names, ours, b"", None) is not None) is overtaken


def test_one_file_sorts_and_two_sort_before_ours():
    from entrypoint.node import verdict

    one, two = (
        verdict.overtaken(Path("/d"), [*names, "m.conf"], "m.conf", b"", None)
        for names in (["a.conf"], ["a.conf", "b.conf"])
    )
    assert "'a.conf' in /d sorts before" in one
    assert "'a.conf', 'b.conf' in /d sort before" in two

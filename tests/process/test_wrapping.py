"""What is wrapped, what never is, and which of our two files is there."""

from __future__ import annotations

import json

import pytest

from tests.process.scratch import FLANNEL, MULTUS, overwrite, settled
from tests.waiting import until

LOOPS = {
    "00-multus.conf": MULTUS,
    "00-multus.conflist": {"cniVersion": "1.0.0", "name": "left over", "plugins": [MULTUS]},
    "05-multus.conf": MULTUS,
    "06-in-the-middle.conflist": {**FLANNEL, "plugins": [FLANNEL["plugins"][0], MULTUS, {"type": "tuning"}]},
    "07-shim.conf": {**MULTUS, "type": "multus-shim"},
    "08-shim.conflist": {**FLANNEL, "plugins": [{"type": "multus-shim"}]},
}


@pytest.mark.parametrize("name", LOOPS)
def test_multus_never_wraps_itself(host, name):
    overwrite(host.conf_dir / name, json.dumps(LOOPS[name]))
    with host.start("--wait-timeout=1") as program:
        program.says("waiting")
        host.master()
        until(lambda: host.wraps(**FLANNEL))
        host.until_ready(program)
    assert ("00-multus.conflist" in host.names()) is False


@pytest.mark.parametrize("name", ["05-multus.conf", "06-in-the-middle.conflist", "07-shim.conf"])
def test_multus_never_wraps_itself_even_if_it_is_named(host, name):
    overwrite(host.conf_dir / name, json.dumps(LOOPS[name]))
    host.master()
    before = host.names()
    outcome = host.run(f"--multus-master-cni-file-name={name}", "--wait-timeout=0.2")
    assert outcome.returncode == 1
    assert f"'{name}' is itself a Multus configuration" in outcome.stderr
    assert set(host.names()) - set(before) <= {"multus.d"}


def test_a_master_that_moves_to_a_list_version_and_back_leaves_exactly_one_file(host):
    with host.configured(cniVersion="0.3.1"):
        for version, there, gone in [
            ("1.0.0", host.conflist, host.conf),
            ("0.3.1", host.conf, host.conflist),
            ("1.1.0", host.conflist, host.conf),
            ("0.4.0", host.conf, host.conflist),
        ]:
            host.master(cniVersion=version)
            until(lambda t=there, g=gone: t.exists() and not g.exists())
            assert json.loads(there.read_text())["cniVersion"] == version


def test_a_link_to_a_directory_under_our_other_name_is_removed_too(host):
    """A runtime passes over directories and not over links to them: it would stop at this one."""
    host.conf.symlink_to(host.root)
    host.master(cniVersion="1.0.0")
    with host.configured():
        pass
    assert host.conf.name not in host.names()
    assert host.root.is_dir()


def test_while_running_a_master_that_cannot_be_wrapped_leaves_the_last_configuration(host):
    with host.configured("--cni-version=0.4.0", cniVersion="0.4.0") as program:
        host.master(cniVersion="0.3.1")
        program.says("error", "--cni-version=0.4.0", "0.3.1")
        settled(program)
        assert host.wraps(cniVersion="0.4.0") and host.ready.exists()
        host.master(cniVersion="1.0.0")
        until(lambda: host.wraps(cniVersion="1.0.0"))

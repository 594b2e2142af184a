"""What is wrapped, what never is, and which of our two files is there."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.process.scratch import FLANNEL, MASTERS, MULTUS, overwrite, settled
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


@pytest.mark.parametrize("name", ["00-multus.conf", "00-multus.conflist"])
def test_naming_what_the_program_writes_itself_is_wrong_usage(host, name):
    host.master()
    before = host.snapshot()
    outcome = host.run(f"--multus-master-cni-file-name={name}")
    assert outcome.returncode == 2
    assert "--multus-master-cni-file-name" in outcome.stderr
    assert name in outcome.stderr
    assert host.snapshot() == before


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


def test_while_the_file_changes_its_name_there_always_is_one(host):
    with host.configured(cniVersion="0.3.1"):
        for version in ["1.0.0", "0.3.1"] * 5:
            host.master(cniVersion=version)
            until(lambda v=version: _one_is_there(host) and host.wraps(cniVersion=v))


def _one_is_there(host):
    there = {"00-multus.conf", "00-multus.conflist"} & set(host.names())
    assert there
    return there


@pytest.mark.parametrize("stale", ["00-multus.conf", "00-multus.conflist"])
def test_a_stale_sibling_of_an_earlier_run_is_removed(host, stale):
    overwrite(host.conf_dir / stale, json.dumps(MULTUS))
    version = "1.0.0" if stale == "00-multus.conf" else "0.3.1"
    host.master(cniVersion=version)
    with host.start() as program:
        host.until_ready(program)
    assert stale not in host.names()


def test_a_link_to_a_directory_under_our_other_name_is_removed_too(host):
    """A runtime passes over directories and not over links to them: it would stop at this one."""
    host.conf.symlink_to(host.root)
    host.master(cniVersion="1.0.0")
    with host.start() as program:
        host.until_ready(program)
    assert host.conf.name not in host.names()
    assert host.root.is_dir()


def test_a_version_that_the_master_is_too_old_for_is_refused(host):
    host.master(cniVersion="0.3.1")
    outcome = host.run("--cni-version=1.0.0")
    assert outcome.returncode == 1
    assert "--cni-version=1.0.0" in outcome.stderr
    assert "0.3.1" in outcome.stderr
    assert "10-flannel.conflist" in outcome.stderr
    assert not host.conf.exists()


def test_a_forced_version_is_written_into_the_copy_of_the_master_too(host):
    with host.configured("--cni-version=1.0.0", "--force-cni-version"):
        document = json.loads(host.conflist.read_text())
    assert document["plugins"][0]["delegates"] == [{**FLANNEL, "cniVersion": "1.0.0"}]


def test_while_running_a_master_that_cannot_be_wrapped_leaves_the_last_configuration(host):
    with host.configured("--cni-version=0.4.0", cniVersion="0.4.0") as program:
        host.master(cniVersion="0.3.1")
        program.says("error", "--cni-version=0.4.0", "0.3.1")
        settled(program)
        assert host.wraps(cniVersion="0.4.0") and host.ready.exists()
        host.master(cniVersion="1.0.0")
        until(lambda: host.wraps(cniVersion="1.0.0"))


@pytest.mark.parametrize("given", ["20-second.conflist", "{dir}/20-second.conflist", "./20-second.conflist"])
def test_a_named_master_is_wrapped_although_another_is_first(host, given):
    host.master()
    host.master("20-second.conflist", ipMasq=True)
    with host.configured(f"--multus-master-cni-file-name={given.format(dir=host.conf_dir)}"):
        assert host.wraps(ipMasq=True)


def test_a_named_master_outside_the_directory_is_wrong_usage(host):
    before = host.snapshot()
    for path in ("/etc/passwd", f"{host.conf_dir}/../x.conf", "sub/x.conf", ".."):
        outcome = host.run(f"--multus-master-cni-file-name={path}")
        assert outcome.returncode == 2, path
        assert str(host.conf_dir) in outcome.stderr
    assert host.snapshot() == before


def test_the_first_master_is_the_first_in_byte_order(host):
    for name in ("a.conf", "Z.conf", "é.conf", "10-x.conflist", "9.conf"):
        host.master(name, origin=name)
    with host.configured():
        for name in ("10-x.conflist", "9.conf", "Z.conf", "a.conf", "é.conf"):
            until(lambda n=name: host.wraps(origin=n))
            (host.conf_dir / name).unlink()


@pytest.mark.parametrize("master", sorted(path.name for path in MASTERS.iterdir()))
def test_the_delegate_is_the_master_with_its_keys_in_order(host, master):
    shutil.copy(MASTERS / master, host.conf_dir)
    with host.configured():
        original = json.loads((MASTERS / master).read_text())
        delegate = host.delegate()
        if "cniVersion" not in original:
            delegate.pop("cniVersion")
        assert json.dumps(delegate) == json.dumps(original)

"""A file that a CNI runtime would read before ours: as long as it is there the node is not configured, in any mode."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.process.scratch import MULTUS, settled
from tests.waiting import until

MODES = {
    "auto": [],
    "named": ["--multus-master-cni-file-name=10-flannel.conflist"],
    "no watch": ["--skip-config-watch"],
    "static": ["--multus-conf-file={host.image}/00-multus.conf"],
    "another directory": ["--multus-autoconfig-dir={host.root}/elsewhere"],
    "no copy": ["--skip-multus-binary-copy"],
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("content", [b"", b"{", json.dumps(MULTUS).encode()], ids=["empty", "broken", "Multus"])
def test_it_is_noticed_when_it_comes_and_when_it_goes(host, mode, content):
    (host.image / "00-multus.conf").write_text(json.dumps(MULTUS))
    (host.root / "elsewhere").mkdir()
    host.master(directory=host.root / "elsewhere")
    shutil.copy(host.multus, host.installed)
    with host.configured(*(flag.format(host=host) for flag in MODES[mode])) as program:
        rival = host.conf_dir / "00-a.json"
        rival.write_bytes(content)
        until(lambda: not host.ready.exists(), what="the verdict")
        program.says("error", "'00-a.json'", "sorts before 00-multus.conf", "remove or rename")
        settled(program)
        assert not host.ready.exists()
        rival.unlink()
        until(host.ready.exists)
        until(lambda: program.log.count("the node is configured") == 2)
    assert program.log.count("the node is not configured any more") == 1


@pytest.mark.parametrize("name", ["00-a.cfg", "00-a.conf.bak", "00-a.conflist/"])
def test_what_no_runtime_reads_is_none(host, name):
    with host.configured() as program:
        path = host.conf_dir / name
        path.mkdir() if name.endswith("/") else path.write_text("x")
        settled(program)
        assert host.ready.exists() and not program.lines("not configured any more")

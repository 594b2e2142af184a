"""Static configuration: `--multus-conf-file=PATH`."""

from __future__ import annotations

import json

import pytest

from tests.process.scratch import FLANNEL, MULTUS, Volume, file_id, settled
from tests.waiting import until

CONTENT = json.dumps(MULTUS)


@pytest.fixture
def source(host):
    path = host.image / "70-multus.conf"
    path.write_text(CONTENT)
    path.chmod(0o640)
    return path


def test_it_is_copied_under_its_own_name_with_its_mode(host, source):
    with host.start(f"--multus-conf-file={source}") as program:
        host.until_ready(program)
        copy = host.conf_dir / source.name
        assert copy.read_text() == CONTENT
        assert copy.stat().st_mode & 0o7777 == 0o640
        source.chmod(0o600)
        until(lambda: copy.stat().st_mode & 0o7777 == 0o600)
    assert host.installed.exists()
    assert host.has_token("token-1")


def test_it_is_copied_again_when_kubelet_swaps_the_config_map(host):
    volume = Volume(host.root / "configmap", **{"70-multus.conf": CONTENT})
    copy = host.conf_dir / "70-multus.conf"
    with host.start(f"--multus-conf-file={volume.path}/70-multus.conf") as program:
        host.until_ready(program)
        for i in range(2):
            settled(program)
            content = json.dumps({**MULTUS, "round": i})
            volume.update(**{"70-multus.conf": content})
            until(lambda content=content: copy.read_text() == content)


def test_it_has_none_of_the_effects_of_auto(host, source):
    host.master()
    (host.conf_dir / "00-multus.conf").write_text(CONTENT)
    (host.conf_dir / "00-multus.conflist").write_text(CONTENT)
    before = file_id(host.conf_dir / "10-flannel.conflist")
    with host.start(
        f"--multus-conf-file={source}", "--rename-conf-file", "--cleanup-config-on-exit", "--wait-timeout=0"
    ) as program:
        program.says("error", "00-multus.conf", "sort before")
        until((host.conf_dir / source.name).exists)
        (host.conf_dir / "05-other.conf").write_text(json.dumps(FLANNEL))
        settled(program)
        assert not host.ready.exists()
        program.stop()  # and takes its copy away
    assert host.names() == [
        "00-multus.conf", "00-multus.conflist", "05-other.conf", "10-flannel.conflist", "multus.d"
    ]  # fmt: skip
    assert file_id(host.conf_dir / "10-flannel.conflist") == before


def test_it_needs_no_master(host, source):
    with host.start(f"--multus-conf-file={source}", "--wait-timeout=0.2") as program:
        host.until_ready(program)
        settled(program)  # without a limit


@pytest.mark.parametrize("content", [b"", b'{"name": ', b"{'name': 1}", b'{"mtu": NaN}', b"\xff\xfe{}"])
def test_what_is_not_json_is_refused_at_start(host, source, content):
    source.write_bytes(content)
    before = host.snapshot()
    outcome = host.run(f"--multus-conf-file={source}")
    assert outcome.returncode == 1
    assert f"--multus-conf-file={source}" in outcome.stderr
    assert host.snapshot() == before


def test_while_running_what_is_not_json_leaves_the_last_copy(host, source):
    copy = host.conf_dir / source.name
    with host.start(f"--multus-conf-file={source}") as program:
        host.until_ready(program)
        source.write_text("{")
        program.says("error", f"--multus-conf-file={source}", "line 1")
        settled(program)
        assert copy.read_text() == CONTENT and host.ready.exists()
        source.unlink()
        program.says("error", f"--multus-conf-file={source}", "does not exist")
        assert copy.read_text() == CONTENT
        source.write_text(new := json.dumps({**MULTUS, "new": True}))
        until(lambda: copy.read_text() == new and host.ready.exists())


def test_the_copy_is_put_back_and_the_token_followed(host, source):
    copy = host.conf_dir / source.name
    with host.start(f"--multus-conf-file={source}") as program:
        host.until_ready(program)
        copy.unlink()
        until(copy.exists)
        host.rotate("rotated")
        until(lambda: host.has_token("rotated"))
        until(host.ready.exists)
        assert program.running()

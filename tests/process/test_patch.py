"""`--multus-conf-patch` and `--wait-for-readiness-indicator`, on the real program."""

from __future__ import annotations

import json

import pytest

from tests.process.scratch import Volume, settled
from tests.waiting import until


def test_a_patch_in_a_config_map_is_followed(host):
    volume = Volume(host.root / "configmap", **{"patch.json": '{"logOptions": {"maxSize": 10}}'})
    with host.configured(f"--multus-conf-patch={volume.path}/patch.json") as program:
        assert json.loads(host.conf.read_text())["logOptions"] == {"maxSize": 10}
        volume.update(**{"patch.json": '{"logOptions": {"maxSize": 20}}'})
        until(lambda: json.loads(host.conf.read_text())["logOptions"] == {"maxSize": 20})
        volume.update(**{"patch.json": "{"})
        program.says("error", "--multus-conf-patch", "line 1")
        settled(program)
        assert json.loads(host.conf.read_text())["logOptions"] == {"maxSize": 20} and host.ready.exists()
        volume.update(**{"patch.json": "{}"})
        until(lambda: "logOptions" not in json.loads(host.conf.read_text()))
        until(host.ready.exists)


@pytest.mark.parametrize("patch", ["[]", "{", '{"type": "x"}', '{"x": "__NODE_NAME__"}', '{"binDir": 7}'])
def test_a_patch_on_the_command_line_that_cannot_be_applied_is_a_usage_error(host, patch):
    host.master()
    before = host.snapshot()
    outcome = host.run(f"--multus-conf-patch={patch}")
    assert outcome.returncode == 2
    assert "--multus-conf-patch" in outcome.stderr
    assert host.snapshot() == before


def test_a_patch_file_that_is_missing_at_the_start_is_named(host):
    host.master()
    outcome = host.run(f"--multus-conf-patch={host.root}/nowhere.json")
    assert outcome.returncode == 1
    assert f"--multus-conf-patch={host.root}/nowhere.json does not exist" in outcome.stderr


GATE = ("--wait-for-readiness-indicator", "--readiness-indicator-file=/run/flannel/subnet.env")


def test_the_configuration_waits_for_the_readiness_indicator(host):
    host.master()
    top = host.root / "host/run"
    top.mkdir()
    with host.start(*GATE) as program:
        program.says("waiting for", "/run/flannel/subnet.env", "--wait-for-readiness-indicator")
        settled(program, waiting=True)
        assert not host.conf.exists()
        (top / "flannel").mkdir()
        (top / "flannel/subnet.env").write_text("x")
        host.until_ready(program)
        (top / "flannel/subnet.env").unlink()
        settled(program)
        assert host.conf.exists()


def test_an_indicator_that_does_not_come_in_time_ends_the_program(host):
    host.master()
    (host.root / "host/run").mkdir()
    outcome = host.run(*GATE, "--wait-timeout=0.2")
    assert outcome.returncode == 1
    assert "gave up after 0.2 s: waiting for" in outcome.stderr
    assert not host.conf.exists()


def test_an_indicator_whose_mount_is_missing_or_that_is_not_named_is_a_usage_error(host):
    host.master()
    missing = host.run(*GATE)
    assert missing.returncode == 2
    assert f"{host.root}/host/run is not there: mount" in missing.stderr
    unnamed = host.run("--wait-for-readiness-indicator")
    assert unnamed.returncode == 2
    assert "needs --readiness-indicator-file" in unnamed.stderr

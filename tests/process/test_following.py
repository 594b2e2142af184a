"""The program follows its inputs by events alone: before each change it sleeps without a limit of time.

How many milliseconds it takes is measured by `make bench`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal

import pytest

from tests.process.scratch import (
    FLANNEL,
    MULTUS,
    Volume,
    file_id,
    overwrite,
    replace,
    settled,
    stays,
    vanish,
)
from tests.waiting import until

ROUNDS = 4  # with the first write no more than may be made in five seconds

MODES = [
    [],
    ["--skip-config-watch"],
    ["--skip-multus-binary-copy"],
    ["--multus-kubeconfig-file-host=/etc/kubernetes/multus.kubeconfig"],
    ["--skip-tls-verify"],
    ["--rename-conf-file", "--cleanup-config-on-exit"],
    ["--multus-master-cni-file-name=10-flannel.conflist", "--skip-config-watch"],
    ["static"],
]


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_a_rotated_token_is_in_the_kubeconfig_at_once_in_every_mode(host, mode):
    if mode == ["static"]:
        static = host.image / "00-multus.conf"
        static.write_text(json.dumps(MULTUS))
        mode = [f"--multus-conf-file={static}"]
    if mode == ["--skip-multus-binary-copy"]:
        shutil.copy(host.multus, host.installed)
    with host.configured(*mode) as program:
        assert host.has_token("token-1")
        for i in range(ROUNDS):
            settled(program)
            host.rotate(f"rotated-{i}")
            until(lambda i=i: host.has_token(f"rotated-{i}"))
        assert host.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_a_ca_file_of_its_own_is_followed_too(host):
    authority = Volume(host.root / "ca", **{"bundle.crt": "FIRST"})
    with host.configured(env={"KUBE_CA_FILE": str(authority.path / "bundle.crt")}):
        encoded = base64.b64encode(b"SECOND").decode()
        authority.update(**{"bundle.crt": "SECOND"})
        until(lambda: encoded in host.kubeconfig.read_text())


@pytest.mark.parametrize("write", [overwrite, replace])
def test_a_changed_master_is_wrapped_at_once(host, write):
    with host.configured() as program:
        for i in range(ROUNDS):
            settled(program)
            write(host.conf_dir / "10-flannel.conflist", json.dumps({**FLANNEL, "name": f"net-{i}"}))
            until(lambda i=i: host.wraps(name=f"net-{i}"))


@pytest.mark.parametrize("pause", [0.0, 0.05, 1.0])
def test_a_master_written_in_place_in_two_halves_is_wrapped_when_it_is_whole(host, pause):
    content = json.dumps({**FLANNEL, "name": "whole"})
    half = len(content) // 2
    with host.configured("--cleanup-config-on-exit") as program:
        before = file_id(host.conf)
        with (host.conf_dir / "10-flannel.conflist").open("w") as file:
            file.write(content[:half])
            file.flush()
            if pause:
                stays(lambda: file_id(host.conf) == before, pause)
            file.write(content[half:])
        until(lambda: host.wraps(name="whole"))
        assert not program.lines("removed", "00-multus")
        assert not program.lines("skipping")


def test_a_removed_and_restored_master_keeps_the_configuration_with_a_warning(host):
    with host.configured() as program:
        before = file_id(host.conf)
        path = host.conf_dir / "10-flannel.conflist"
        path.unlink()
        program.says("warning", "no usable master")
        until(lambda: not host.ready.exists())
        assert file_id(host.conf) == before
        host.master()
        until(host.ready.exists)
        assert file_id(host.conf) == before  # it was right all the time
        path.unlink()
        until(lambda: not host.ready.exists())
        host.master(ipMasq=True)
        until(lambda: host.wraps(ipMasq=True))


def test_with_cleanup_a_removed_master_takes_the_configuration_away_and_brings_it_back(host):
    path = host.conf_dir / "10-flannel.conflist"
    with host.configured("--cleanup-config-on-exit", "--wait-timeout=1") as program:
        for _ in range(ROUNDS):
            settled(program)
            path.unlink()
            until(lambda: not host.conf.exists())
            settled(program, waiting=True)
            host.master()
            until(host.conf.exists)


def test_an_earlier_name_overtakes_the_master_and_gives_it_back(host):
    with host.configured() as program:
        for i in range(2):
            settled(program)
            replace(host.conf_dir / "05-early.conflist", json.dumps({**FLANNEL, "name": f"early-{i}"}))
            until(lambda i=i: host.wraps(name=f"early-{i}"))
            settled(program)
            (host.conf_dir / "05-early.conflist").unlink()
            until(lambda: host.wraps(name="cbr0"))


def test_a_configuration_directory_that_is_removed_and_made_again_is_filled_again(host):
    with host.configured() as program:
        for i in range(2):
            settled(program)
            vanish(host.conf_dir)
            until(lambda: not host.ready.exists())
            settled(program)
            host.conf_dir.mkdir()
            host.master(mtu=i)
            until(lambda i=i: host.wraps(mtu=i))
            until(host.ready.exists)
            assert host.has_token("token-1")
        assert program.lines("--cni-conf-dir", "is not there")


def test_a_configuration_directory_that_another_takes_the_place_of_is_filled(host):
    other = host.root / "other"
    other.mkdir()
    with host.configured():
        host.conf_dir.rename(host.root / "away")
        other.rename(host.conf_dir)
        host.master(ipMasq=True)
        until(lambda: host.wraps(ipMasq=True) and host.kubeconfig.exists())
        host.master(ipMasq=False)
        until(lambda: host.wraps(ipMasq=False))


def test_a_binary_directory_that_is_removed_and_made_again_is_filled_again(host):
    with host.configured() as program:
        vanish(host.bin_dir)
        program.says("--cni-bin-dir", "is not there")
        host.bin_dir.mkdir()
        until(lambda: host.installed.exists() and host.ready.exists())


def test_an_autoconfig_directory_of_its_own_is_followed_through_removal(host):
    own = host.root / "cilium/net.d"
    own.mkdir(parents=True)
    host.master(directory=own)
    with host.start(f"--multus-autoconfig-dir={own}") as program:
        host.until_ready(program)
        for i in range(2):
            settled(program)
            shutil.rmtree(own.parent)
            until(lambda: not host.ready.exists())
            settled(program)
            own.mkdir(parents=True)
            settled(program)
            host.master(directory=own, mtu=i)
            until(lambda i=i: host.wraps(mtu=i))
        assert program.lines("warning", "no usable master")
        assert host.names() == ["00-multus.conf", "multus.d"]


def test_a_service_account_directory_that_is_removed_and_made_again_is_followed(host):
    with host.configured() as program:
        shutil.rmtree(host.account.path)
        program.says("no service account token")
        assert host.has_token("token-1")
        host.account = Volume(host.account.path, **{"token": "again-1", "ca.crt": "CA"})
        until(lambda: host.has_token("again-1"))
        settled(program)
        host.rotate("new")
        until(lambda: host.has_token("new"))


def test_a_master_that_is_a_link_is_followed_to_its_target(host):
    target = host.root / "elsewhere/cni.conf"
    target.parent.mkdir()
    target.write_text(json.dumps({**FLANNEL, "name": "one"}))
    (host.conf_dir / "10-link.conflist").symlink_to(target)
    with host.configured() as program:
        assert host.wraps(name="one")
        for write in (replace, overwrite):
            settled(program)
            write(target, json.dumps({**FLANNEL, "name": write.__name__}))
            until(lambda write=write: host.wraps(name=write.__name__))
        settled(program)
        other = target.with_name("other.conf")
        other.write_text(json.dumps({**FLANNEL, "name": "other"}))
        (host.conf_dir / "link.new").symlink_to(other)
        (host.conf_dir / "link.new").rename(host.conf_dir / "10-link.conflist")
        until(lambda: host.wraps(name="other"))
        other.unlink()
        until(lambda: not host.ready.exists())
        other.write_text(json.dumps({**FLANNEL, "name": "back"}))
        until(lambda: host.wraps(name="back"))


def test_a_configuration_directory_that_is_a_link_is_followed_when_it_is_swapped(host):
    targets = [host.root / f"target-{i}" for i in range(3)]
    for i, target in enumerate(targets):
        target.mkdir()
        host.master(directory=target, mtu=i)
    vanish(host.conf_dir)
    host.conf_dir.symlink_to(targets[0])

    def swap(target):
        (host.root / "link").symlink_to(target)
        (host.root / "link").rename(host.conf_dir)

    with host.configured() as program:
        for i in (1, 2):
            settled(program)
            swap(targets[i])
            until(lambda i=i: host.wraps(mtu=i))
        until(host.kubeconfig.exists)
        host.master(mtu=1000)
        until(lambda: host.wraps(mtu=1000))
        targets[0].joinpath("10-flannel.conflist").unlink()
        settled(program)
        assert host.wraps(mtu=1000)


def test_without_the_config_watch_the_master_is_not_followed(host):
    with host.configured("--skip-config-watch", "--cleanup-config-on-exit"):
        before = file_id(host.conf)
        host.master(ipMasq=True)
        host.master("05-early.conflist")
        host.rotate("proof")
        until(lambda: host.has_token("proof"))
        (host.conf_dir / "05-early.conflist").unlink()
        (host.conf_dir / "10-flannel.conflist").unlink()
        host.rotate("proof-2")
        until(lambda: host.has_token("proof-2"))
        assert file_id(host.conf) == before
        assert host.ready.exists()


def test_what_happens_while_the_kernel_drops_events_is_not_missed(host):
    with host.configured() as program:
        program.process.send_signal(signal.SIGSTOP)
        names = [os.fsencode(host.conf_dir / f"9{i}-storm.conf") for i in range(2)]
        for _ in range(6000):  # more than fs.inotify.max_queued_events; equal neighbours would be merged
            for name in names:
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
                os.unlink(name)
        host.master(ipMasq=True)
        program.process.send_signal(signal.SIGCONT)
        until(lambda: host.wraps(ipMasq=True))

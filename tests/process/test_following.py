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


def test_the_swap_of_the_data_link_alone_is_enough(host):
    """A watch on the file itself would only see the removal of the old directory, which comes later."""
    host.account.keeps_old = True
    with host.configured() as program:
        settled(program)
        host.rotate("swapped")
        until(lambda: host.has_token("swapped"))


def test_a_rotated_ca_is_in_the_kubeconfig_at_once(host):
    with host.configured() as program:
        settled(program)
        host.rotate(authority="ANOTHER\n")
        until(lambda: base64.b64encode(b"ANOTHER\n").decode() in host.kubeconfig.read_text())


def test_a_ca_file_of_its_own_is_followed_too(host):
    authority = Volume(host.root / "ca", **{"bundle.crt": "FIRST"})
    with host.configured(env={"KUBE_CA_FILE": str(authority.path / "bundle.crt")}):
        encoded = base64.b64encode(b"SECOND").decode()
        authority.update(**{"bundle.crt": "SECOND"})
        until(lambda: encoded in host.kubeconfig.read_text())


def test_a_token_of_a_plain_file_written_in_place_is_followed(host):
    shutil.rmtree(host.account.path)
    host.account.path.mkdir()
    (host.account.path / "ca.crt").write_text("CA")
    (host.account.path / "token").write_text("plain-1")
    with host.configured():
        overwrite(host.account.path / "token", "plain-2")
        until(lambda: host.has_token("plain-2"))


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


def test_a_first_master_written_in_two_halves_is_not_passed_over_for_a_later_one(host):
    content = json.dumps({**FLANNEL, "name": "first"})
    with host.start() as program, (host.conf_dir / "10-first.conflist").open("w") as file:
        program.says("waiting")
        file.write(content[:20])
        file.flush()
        host.master("20-second.conflist")
        stays(lambda: not host.conf.exists(), 0.5)
        file.write(content[20:])
        file.flush()
        until(lambda: host.wraps(name="first"))


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


def test_with_cleanup_a_master_may_be_away_for_longer_than_the_wait_timeout(host):
    with host.configured("--cleanup-config-on-exit", "--wait-timeout=0.3") as program:
        (host.conf_dir / "10-flannel.conflist").unlink()
        until(lambda: not host.conf.exists())
        settled(program, waiting=True)  # the time-out is no limit any more
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


def test_an_autoconfig_directory_that_appears_after_the_start_is_waited_for(host):
    own = host.root / "a/b/c"
    with host.start(f"--multus-autoconfig-dir={own}") as program:
        program.says("waiting", str(own), "does not exist")
        for directory in (own.parent.parent, own.parent, own):
            directory.mkdir()
            settled(program, waiting=True)  # one by one, as an installer does
        host.master(directory=own)
        until(lambda: host.wraps(name="cbr0"))


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


def test_the_version_of_an_earlier_master_does_not_stick(host):
    """In the Go peer it does, and the next, different master ends the program."""
    with host.configured(cniVersion="0.3.1"):
        for version in ("1.0.0", "0.2.0", "1.1.0", "0.4.0"):
            host.master(cniVersion=version)
            until(lambda v=version: host.wraps(cniVersion=v))
        assert json.loads(host.conf.read_text())["cniVersion"] == "0.4.0"


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

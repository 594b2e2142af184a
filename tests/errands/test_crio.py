"""Restarting CRI-O: against a real dbus-daemon with a small systemd on it, and against a real systemd."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from jeepney import message_bus
from jeepney.io.blocking import open_dbus_connection

from entrypoint.errands import child, crio
from tests.smallsystemd import BUS_CONFIG, address_of, bus, systemd
from tests.waiting import BOUND, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (Debian package dbus)"),
]

# ---- with a small systemd ----


def test_the_unit_is_restarted_in_mode_replace_and_its_job_waited_for(tmp_path):
    with bus(tmp_path) as address, systemd(address) as served:
        crio.restart(address, crio.UNIT, 60)
    assert served.calls == [("Subscribe",), ("RestartUnit", "crio.service", "replace")]


@pytest.mark.parametrize("result", ["failed", "canceled", "timeout", "dependency"])
def test_a_job_that_did_not_end_well_is_a_failure_that_says_where_to_look(tmp_path, result):
    with bus(tmp_path) as address, systemd(address, result=result):
        with pytest.raises(crio.RestartError, match=rf"job result '{result}'.*journalctl -u crio.service"):
            crio.restart(address, crio.UNIT, 60)


def test_a_job_that_never_ends_is_waited_for_no_longer_than_said(tmp_path):
    with bus(tmp_path) as address, systemd(address, result=None):
        with pytest.raises(crio.RestartError, match=r"has not restarted crio\.service within 0\.3 s"):
            crio.restart(address, crio.UNIT, 0.3)


def test_a_systemd_that_does_not_answer_is_waited_for_no_longer_than_said(tmp_path):
    with bus(tmp_path) as address, systemd(address, answering=False):
        with pytest.raises(crio.RestartError, match=r"within 0\.3 s"):
            crio.restart(address, crio.UNIT, 0.3)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("org.freedesktop.systemd1.NoSuchUnit", "does this node run CRI-O"),
        ("org.freedesktop.systemd1.UnitMasked", "masked"),
        ("org.freedesktop.DBus.Error.AccessDenied", "root"),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "root"),
        ("org.freedesktop.DBus.Error.Failed", "what systemd said"),
    ],
)
def test_a_refusal_of_systemd_is_passed_on_with_what_to_do(tmp_path, name, advice):
    with bus(tmp_path) as address, systemd(address, error=(name, "what systemd said")):
        with pytest.raises(crio.RestartError, match=rf"{name}: what systemd said.*") as raised:
            crio.restart(address, crio.UNIT, 60)
    assert advice in str(raised.value)


def test_a_connection_that_breaks_while_waiting_is_a_failure(tmp_path):
    with bus(tmp_path) as address, systemd(address, result=None) as served:
        failures = []

        def attempt():
            try:
                crio.restart(address, crio.UNIT, 60)
            except crio.RestartError as error:
                failures.append(str(error))

        thread = threading.Thread(target=attempt)
        thread.start()
        until(lambda: len(served.calls) == 2)
        address.kill()
        thread.join(BOUND)
    assert "broke" in failures[0]


# ---- without one ----


def test_a_bus_without_systemd_is_named_as_such(tmp_path):
    with bus(tmp_path) as address, pytest.raises(crio.RestartError, match=r"no systemd on this bus.*/run/dbus"):
        crio.restart(address, crio.UNIT, 60)


def test_a_policy_that_forbids_the_call_is_access_denied(tmp_path):
    forbid = '<deny send_interface="org.freedesktop.systemd1.Manager" send_member="RestartUnit"/>'
    with bus(tmp_path, policy=forbid) as address, systemd(address) as served:
        with pytest.raises(crio.RestartError, match=r"AccessDenied.*root"):
            crio.restart(address, crio.UNIT, 60)
    assert served.calls == [("Subscribe",)]


def test_a_bus_that_does_not_know_this_user_is_named_as_such(tmp_path):
    with bus(tmp_path, auth="DBUS_COOKIE_SHA1") as address:
        with pytest.raises(crio.RestartError, match="the bus does not accept this user"):
            crio.restart(address, crio.UNIT, 60)


def test_a_missing_socket_says_what_to_mount(tmp_path):
    with pytest.raises(crio.RestartError, match=r"No such file or directory.*mount the host's directory /run/dbus"):
        crio.restart(f"unix:path={tmp_path}/bus", crio.UNIT, 60)


def test_a_socket_that_nobody_serves_any_more_says_to_mount_the_directory(tmp_path):
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "bus"))
    with pytest.raises(crio.RestartError, match=r"Connection refused.*not the socket file alone"):
        crio.restart(f"unix:path={tmp_path}/bus", crio.UNIT, 60)


def test_a_bus_that_accepts_and_stays_silent_is_waited_for_no_longer_than_said(tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "bus"))
        silent.listen()
        with pytest.raises(crio.RestartError, match="no answer in time"):
            crio.restart(f"unix:path={tmp_path}/bus", crio.UNIT, 0.2)


def as_another_user(address):
    """Have another user ask for a restart; return what that one is told."""
    code = (
        "import os, sys, jeepney.io.blocking, jeepney.auth\n"
        "from entrypoint.errands import crio\n"
        "try: os.setuid(54321)\n"
        "except PermissionError: sys.exit(77)\n"
        "try: crio.restart(sys.argv[1], 'crio.service', 60)\n"
        "except crio.RestartError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True)
    if ran.returncode == 77:
        pytest.skip("needs to become another user")
    return ran.stdout + ran.stderr


def test_a_socket_that_may_not_be_opened_says_who_should(tmp_path):
    with bus(tmp_path) as address:
        (tmp_path / "bus").chmod(0o700)
        assert "Permission denied; run the container as root" in as_another_user(address)


@pytest.mark.parametrize("address", ["nonsense", "tcp:host=127.0.0.1,port=1", "unix:", "unix:path"])
def test_an_address_that_is_none_is_named_with_its_variable(address):
    with pytest.raises(crio.RestartError, match="DBUS_SYSTEM_BUS_ADDRESS"):
        crio.restart(address, crio.UNIT, 1)


def test_a_bus_that_hangs_up_on_a_user_whom_the_host_does_not_know_is_told_with_what_to_do():
    with tempfile.TemporaryDirectory() as name, bus(Path(name)) as address:  # pytest's own nobody else may enter
        Path(name).chmod(0o755)
        Path(name, "bus").chmod(0o777)
        assert "the bus does not accept this user; run the container as root" in as_another_user(address)


# ---- as the daemon starts it ----


def test_the_child_process_honours_the_bus_address_of_the_environment(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "entrypoint")
    with bus(tmp_path) as address, systemd(address) as served:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        child.Child("entrypoint.errands.crio", {}, "restart crio.service").start()
        until(lambda: "restarted crio.service" in caplog.text)
    assert ("RestartUnit", "crio.service", "replace") in served.calls


def test_the_child_process_reports_a_failure_and_ends(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    child.Child("entrypoint.errands.crio", {}, "restart crio.service").start()
    until(lambda: "is not restarted (--restart-crio)" in caplog.text)
    assert "mount" in caplog.text


# ---- with the real systemd ----


@pytest.fixture
def real_systemd(tmp_path, one_at_a_time):
    """A `systemd --user` of this test's own, on a bus of its own, with a unit crio.service of its own.

    Two at once would share control groups, named after the units, and the first to end kills what is in them.
    """
    program = shutil.which("systemd", path="/lib/systemd:/usr/lib/systemd") or "systemd"
    if shutil.which(program) is None or shutil.which("unshare") is None:
        pytest.skip("needs unshare and systemd (Debian packages systemd, libpam-systemd)")
    units = tmp_path / "config/systemd/user"
    units.mkdir(parents=True)
    starts = tmp_path / "starts"
    for name, content in {
        "crio.service": f"[Service]\nType=exec\nExecStart=/bin/sh -c 'echo $$$$ >> \"{starts}\"; exec sleep 1000'\n",
        "broken.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n",
        "slow.service": "[Service]\nType=oneshot\nExecStart=/bin/sleep 100\n",
        "test.target": "[Unit]\nWants=dbus.socket dbus.service\n",
        # systemd comes to a bus only that it has started itself.
        "dbus.socket": f"[Socket]\nListenStream={tmp_path}/bus\n",
        "dbus.service": "[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\n"
        f"ExecStart={shutil.which('dbus-daemon')} --nofork --nopidfile --systemd-activation --address=systemd: "
        f'"--config-file={tmp_path}/bus.conf"\n',
    }.items():
        (units / name).write_text(content)
    address = address_of(tmp_path / "bus")
    (tmp_path / "bus.conf").write_text(BUS_CONFIG.format(address=address, auth="EXTERNAL", policy=""))
    # It refuses to run on a machine that systemd has not booted, which it knows by this directory.
    booted = "mount -t tmpfs tmpfs /run && mkdir /run/systemd /run/systemd/system && exec "
    manager = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{booted}{program} --user --unit=test.target"],
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path),
            "XDG_CONFIG_HOME": f"{tmp_path}/config",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: on_bus(address) or manager.poll() is not None, "systemd to come to the bus")
        if manager.poll() is not None:
            pytest.skip(f"systemd --user does not run here (exit code {manager.returncode})")
        yield address, starts
    finally:
        manager.terminate()
        with suppress(subprocess.TimeoutExpired):
            manager.wait(10)
        manager.kill()
        manager.wait()


def on_bus(address):
    with suppress(OSError, TimeoutError), open_dbus_connection(address) as connection:
        return connection.send_and_get_reply(message_bus.NameHasOwner("org.freedesktop.systemd1")).body[0]
    return False


def test_a_real_systemd_restarts_the_unit(real_systemd):
    address, starts = real_systemd
    crio.restart(address, "crio.service", 60)
    until(lambda: starts.exists() and starts.read_text())
    first = starts.read_text()
    crio.restart(address, "crio.service", 60)
    until(lambda: len(starts.read_text().split()) == 2)
    assert starts.read_text().startswith(first)


def test_a_real_systemd_that_has_no_such_unit_says_so(real_systemd):
    with pytest.raises(crio.RestartError, match=r"NoSuchUnit.*does this node run CRI-O"):
        crio.restart(real_systemd[0], "absent.service", 60)


def test_a_real_systemd_whose_unit_fails_says_so(real_systemd):
    with pytest.raises(crio.RestartError, match="job result 'failed'"):
        crio.restart(real_systemd[0], "broken.service", 60)


def test_a_real_systemd_that_takes_too_long_is_waited_for_no_longer_than_said(real_systemd):
    with pytest.raises(crio.RestartError, match=r"within 0\.5 s"):
        crio.restart(real_systemd[0], "slow.service", 0.5)

"""Restarting CRI-O: against a real dbus-daemon with a small systemd on it, and against a real systemd."""

import os
import shutil
import socket
import subprocess
import threading
from contextlib import suppress

import pytest
from jeepney import message_bus
from jeepney.io.blocking import open_dbus_connection

from entrypoint.errands import crio
from tests.smallsystemd import BUS_CONFIG, address_of, bus, systemd
from tests.waiting import until

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (Debian package dbus)"),
]
SUBSCRIBED = ("Subscribe",)


def failure(address, unit=crio.UNIT, timeout=60):
    """Ask for a restart that fails; return why."""
    with pytest.raises(crio.RestartError) as raised:
        crio.restart(address, unit, timeout)
    return str(raised.value)


# ---- with a small systemd ----


def test_the_unit_is_restarted_in_mode_replace_and_its_job_waited_for(tmp_path):
    with bus(tmp_path) as address, systemd(address) as served:
        crio.restart(address, crio.UNIT, 60)
    assert served.calls == [SUBSCRIBED, ("RestartUnit", "crio.service", "replace")]


@pytest.mark.parametrize("result", ["failed", "canceled", "timeout", "dependency"])
def test_a_job_that_did_not_end_well_is_a_failure_that_says_where_to_look(tmp_path, result):
    with bus(tmp_path) as address, systemd(address, result=result):
        said = failure(address)
    assert f"result of its job: {result}" in said
    assert "journalctl -u crio.service" in said


@pytest.mark.parametrize("behaviour", [{"result": None}, {"answering": False}], ids=["a job", "an answer"])
def test_what_never_comes_is_waited_for_no_longer_than_said(tmp_path, behaviour):
    with bus(tmp_path) as address, systemd(address, **behaviour):
        assert "has not restarted crio.service (result of its job: none within 0.3 s)" in failure(address, timeout=0.3)


NO_UNIT = "org.freedesktop.systemd1.NoSuchUnit"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (NO_UNIT, "does this node run CRI-O"),
        ("org.freedesktop.systemd1.UnitMasked", "masked"),
        ("org.freedesktop.DBus.Error.AccessDenied", "root"),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "root"),
        ("org.freedesktop.DBus.Error.Spawn.ChildExited", "no systemd on this bus"),
        ("org.freedesktop.DBus.Error.Failed", "journal"),
    ],
)
def test_a_refusal_of_systemd_is_passed_on_with_what_to_do(tmp_path, name, advice):
    with bus(tmp_path) as address, systemd(address, error=(name, "what systemd said")):
        said, _, told = failure(address).partition("; ")
    assert said == f"{name}: what systemd said"
    assert advice in told


def test_a_connection_that_breaks_while_waiting_is_a_failure(tmp_path):
    with bus(tmp_path) as address, systemd(address, result=None) as served:
        killer = threading.Thread(target=lambda: (until(lambda: len(served.calls) == 2), address.kill()))
        killer.start()
        assert "broke" in failure(address)
        killer.join()


# ---- without one ----


def test_a_bus_without_systemd_is_named_as_such(tmp_path):
    with bus(tmp_path) as address:
        said = failure(address)
    assert "no systemd on this bus" in said
    assert "mount the host's directory /run/dbus" in said


def test_a_policy_that_forbids_the_call_is_access_denied(tmp_path):
    forbid = '<deny send_interface="org.freedesktop.systemd1.Manager" send_member="RestartUnit"/>'
    with bus(tmp_path, policy=forbid) as address, systemd(address) as served:
        said = failure(address)
    assert "AccessDenied" in said
    assert "root" in said
    assert served.calls == [SUBSCRIBED]


def hang_up(served):
    served.accept()[0].close()


def let_in(served, *then):
    connection, _ = served.accept()
    with suppress(OSError):
        for each in (b"", b"OK 1234deadbeef\r\n", *then):  # the first for the byte that begins it all
            connection.recv(4096)
            connection.sendall(each)
        while connection.recv(4096):
            pass


ANSWERS = {
    "hangs up": hang_up,  # as on a user whom the host does not know
    "says no hello": let_in,
    "is none": lambda served: let_in(served, b"OK again, and more of it\r\n"),
}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("missing", "No such file or directory"),
        ("left behind", "Connection refused"),
        ("silent", "Did not authenticate"),
        ("hangs up", "cannot reach the system bus"),
        ("says no hello", "cannot reach the system bus"),
        ("is none", "cannot reach the system bus"),
    ],
)
def test_a_bus_that_cannot_be_reached_is_told_with_what_to_mount_and_as_whom_to_run(tmp_path, state, reason):
    with socket.socket(socket.AF_UNIX) as served:
        if state != "missing":
            served.bind(str(tmp_path / "bus"))
        if state in {"silent", *ANSWERS}:
            served.listen()
        if state in ANSWERS:
            threading.Thread(target=ANSWERS[state], args=(served,), daemon=True).start()
        said = failure(address_of(tmp_path / "bus"), timeout=60 if state == "hangs up" else 0.2)
    assert reason in said
    assert "mount the host's directory /run/dbus" in said
    assert "not the socket file alone, and run the container as root, without a user namespace" in said


def test_a_bus_that_does_not_know_this_user_is_told_like_one_that_cannot_be_reached(tmp_path):
    with bus(tmp_path, auth="DBUS_COOKIE_SHA1") as address:
        assert "Authentication failed" in failure(address)


@pytest.mark.parametrize("address", ["nonsense", "tcp:host=127.0.0.1,port=1", "unix:", "unix:path"])
def test_an_address_that_is_none_is_named_with_its_variable(address):
    assert "DBUS_SYSTEM_BUS_ADDRESS" in failure(address)


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
            **dict.fromkeys(("HOME", "XDG_RUNTIME_DIR"), str(tmp_path)),
            "XDG_CONFIG_HOME": f"{units}/../..",
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


def test_a_real_systemd_restarts_the_unit_or_says_why_not(real_systemd):
    address, starts = real_systemd
    crio.restart(address, "crio.service", 60)
    until(lambda: starts.exists() and starts.read_text())
    first = starts.read_text()
    crio.restart(address, "crio.service", 60)
    until(lambda: len(starts.read_text().split()) == 2)
    assert starts.read_text().startswith(first)
    assert NO_UNIT in failure(address, "absent.service")
    assert "result of its job: failed" in failure(address, "broken.service")
    assert "none within 0.5 s" in failure(address, "slow.service", 0.5)

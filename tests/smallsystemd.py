"""A D-Bus bus of a test's own, and as much of systemd on it as a restart meets."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from urllib.parse import quote

from jeepney import DBusAddress, HeaderFields, message_bus, new_error, new_method_return, new_signal
from jeepney.io.blocking import open_dbus_connection

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>{address}</listen>
  <auth>{auth}</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    {policy}
  </policy>
</busconfig>
"""
MANAGER = "org.freedesktop.systemd1.Manager"
SYSTEMD = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", MANAGER)
JOB = "/org/freedesktop/systemd1/job/42"


class Bus(str):
    """Its address; `kill` ends it."""


def address_of(path):
    """Return the D-Bus address of a socket."""
    return f"unix:path={quote(str(path))}"


@contextmanager
def bus(directory, auth="EXTERNAL", policy=""):
    path = directory / "bus"
    config = directory / "bus.conf"
    address = address_of(path)
    config.write_text(BUS_CONFIG.format(address=address, auth=auth, policy=policy))
    process = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"], stdout=subprocess.PIPE
    )
    assert process.stdout.readline()  # it listens
    try:
        served = Bus(address)
        served.kill = process.kill
        yield served
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class SmallSystemd:
    """As much of systemd as a restart meets, answering as told."""

    def __init__(self, address, result="done", error=None, *, answering=True):
        self.calls = []
        self.result, self._error, self._answering = result, error, answering
        self._subscribed = False
        self._connection = open_dbus_connection(address)
        self._connection.send_and_get_reply(message_bus.RequestName("org.freedesktop.systemd1"))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError, ValueError):
            while True:
                message = self._connection.receive()
                member = message.header.fields.get(HeaderFields.member)
                if message.header.fields.get(HeaderFields.interface) == MANAGER:
                    self.calls.append((member, *message.body))
                    self._answer(member, message)

    def _answer(self, member, message):
        if member == "Subscribe":
            self._subscribed = True
            self._connection.send(new_method_return(message))
        elif self._error:
            name, said = self._error
            self._connection.send(new_error(message, name, "s", (said,)))
        elif self._answering:
            if self._subscribed and self.result:
                # Another job ends first; and ours ends even before its caller knows its name.
                self._job_removed(JOB + "0", "other.service", "failed")
                self._job_removed(JOB, message.body[0], self.result)
            self._connection.send(new_method_return(message, "o", (JOB,)))

    def _job_removed(self, job, unit, result):
        self._connection.send(new_signal(SYSTEMD, "JobRemoved", "uoss", (42, job, unit, result)))

    def finish(self, result):
        """End the job that was asked for."""
        self._job_removed(JOB, "crio.service", result)

    def close(self):
        self._connection.sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def systemd(address, **behaviour):
    served = SmallSystemd(address, **behaviour)
    try:
        yield served
    finally:
        served.close()

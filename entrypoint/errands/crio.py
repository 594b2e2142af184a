"""Restarting CRI-O over D-Bus: the image has no systemctl, and the container is not in systemd's namespaces.

It is a process of its own because it may take minutes, which the loop cannot wait, and because jeepney shall not stay
in the resident process.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from entrypoint.errands import child

if TYPE_CHECKING:
    from jeepney import Message
    from jeepney.io.blocking import DBusConnection

UNIT = "crio.service"
DEFAULT_BUS = "unix:path=/run/dbus/system_bus_socket"
TIMEOUT = 120.0
"""Seconds for the whole restart: more than systemd itself gives a service to start."""

_MANAGER = "org.freedesktop.systemd1.Manager"
_MOUNT = (
    "mount the host's directory /run/dbus into the container at the same path (hostPath volume), not the socket file "
    "alone, and run the container as root, without a user namespace"
)
"""A mounted socket file stays the old one when the host's D-Bus daemon starts again, and the bus hangs up on a user
whom the host does not know."""
_NO_SYSTEMD = f"no systemd on this bus: is it the host's system bus? {_MOUNT}"
_AS_ROOT = "run the container as root, with an SELinux type that may use D-Bus"
_ADVICE = {
    "org.freedesktop.DBus.Error.ServiceUnknown": _NO_SYSTEMD,
    "org.freedesktop.DBus.Error.NameHasNoOwner": _NO_SYSTEMD,
    "org.freedesktop.DBus.Error.AccessDenied": _AS_ROOT,
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": _AS_ROOT,
    "org.freedesktop.systemd1.NoSuchUnit": "does this node run CRI-O? If not, drop --restart-crio",
    "org.freedesktop.systemd1.UnitMasked": "the unit is masked on this node: drop --restart-crio",
}


class RestartError(Exception):
    """CRI-O was not restarted; the message says why and what to mount or do."""


def restart(address: str, unit: str, timeout: float) -> None:
    """Have the systemd on the bus at this D-Bus address restart the unit, and wait for the result.

    Waits at most `timeout` seconds for the bus, and as long for systemd. Raises `RestartError`.
    """
    from jeepney.bus import get_bus
    from jeepney.io.blocking import DBusConnection, prep_socket
    from jeepney.wrappers import DBusErrorResponse

    try:
        path = get_bus(address)
    except (ValueError, KeyError, RuntimeError, StopIteration):
        raise RestartError(f"DBUS_SYSTEM_BUS_ADDRESS={address!r} is not an address such as {DEFAULT_BUS}") from None
    try:
        stream = prep_socket(path, timeout=timeout)
        # What a new connection says first has no time-out of its own.
        hang_up = threading.Timer(timeout, stream.shutdown, [socket.SHUT_RDWR])
        hang_up.daemon = True
        hang_up.start()
        try:
            connection = DBusConnection(stream)
        finally:
            hang_up.cancel()
    except (OSError, ValueError, LookupError, DBusErrorResponse) as error:
        raise RestartError(f"cannot reach the system bus at {address}: {_words(error)}; {_MOUNT}") from error
    try:
        with connection:
            result = _restart(connection, unit, time.monotonic() + timeout)
    except TimeoutError:
        result = f"none within {timeout:g} s"
    except DBusErrorResponse as error:
        name = str(error.name)
        # Where there is no systemd, a bus may try to start one itself.
        advice = _NO_SYSTEMD if ".Error.Spawn." in name else _ADVICE.get(name, "look at the journal of the node")
        raise RestartError(f"{': '.join([name, *map(str, error.data[:1])])}; {advice}") from error
    except (OSError, ValueError, LookupError) as error:
        raise RestartError(f"the connection to {address} broke: {_words(error)}; is D-Bus restarting?") from error
    if result != "done":
        where = f"see `systemctl status {unit}` and `journalctl -u {unit}` on the node"
        raise RestartError(f"systemd has not restarted {unit} (result of its job: {result}); {where}")


def _restart(connection: DBusConnection, unit: str, deadline: float) -> str:
    """Restart the unit; return the result of the job. Raises TimeoutError, and what the connection raises."""
    from jeepney import DBusAddress, MatchRule, message_bus, new_method_call
    from jeepney.wrappers import unwrap_msg

    def call(message: Message) -> Any:
        return unwrap_msg(connection.send_and_get_reply(message, timeout=deadline - time.monotonic()))

    systemd = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", _MANAGER)
    finished = MatchRule(type="signal", interface=_MANAGER, member="JobRemoved", path=systemd.object_path)
    ended: deque[Message] = deque()
    with connection.filter(finished, queue=ended):
        call(message_bus.AddMatch(finished))
        call(new_method_call(systemd, "Subscribe"))  # else systemd sends no signals
        (job,) = call(new_method_call(systemd, "RestartUnit", "ss", (unit, "replace")))
        while True:
            signal = connection.recv_until_filtered(ended, timeout=deadline - time.monotonic())
            _, path, _, result = signal.body
            if path == job:
                return str(result)


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _work(_: dict[str, Any]) -> bool:
    try:
        restart(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_BUS, UNIT, TIMEOUT)
    except RestartError as error:
        by_hand = f"By hand: `systemctl restart {UNIT}` on the node"
        child.say("ERROR", f"{UNIT} is not restarted (--restart-crio): {error}. {by_hand}")
        return False
    child.say("INFO", f"restarted {UNIT}, which reads the new configuration")
    return True


if __name__ == "__main__":
    child.run(_work)

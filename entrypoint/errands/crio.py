"""Restarting CRI-O over D-Bus: the image has no systemctl, and the container is not in systemd's namespaces.

It is a process of its own because it may take minutes, which the loop cannot wait, and because jeepney shall not stay
in the resident process.
"""

from __future__ import annotations

import os
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
_MOUNT = "mount the host's directory /run/dbus into the container at the same path (hostPath volume)"

_ADVICE = {
    "org.freedesktop.DBus.Error.ServiceUnknown": f"no systemd on this bus: is it the host's system bus? {_MOUNT}",
    "org.freedesktop.DBus.Error.NameHasNoOwner": f"no systemd on this bus: is it the host's system bus? {_MOUNT}",
    "org.freedesktop.DBus.Error.AccessDenied": "run the container as root, with an SELinux type that may use D-Bus",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": "run the container as root",
    "org.freedesktop.systemd1.NoSuchUnit": "does this node run CRI-O? If not, drop --restart-crio",
    "org.freedesktop.systemd1.UnitMasked": "the unit is masked on this node: drop --restart-crio",
}


class RestartError(Exception):
    """CRI-O was not restarted; the message says why and what to mount or do."""


def restart(address: str, unit: str, timeout: float) -> None:
    """Have the systemd on the bus at this D-Bus address restart the unit, and wait for the result.

    Waits at most `timeout` seconds. Raises `RestartError`.
    """
    deadline = time.monotonic() + timeout
    connection = _connect(address, deadline)
    try:
        _restart(connection, unit, deadline)
    except TimeoutError:
        raise RestartError(
            f"systemd has not restarted {unit} within {timeout:g} s; see `systemctl status {unit}` on the node"
        ) from None
    except (OSError, ValueError) as error:
        raise RestartError(f"the connection to {address} broke: {_words(error)}") from error
    finally:
        connection.close()


def _connect(address: str, deadline: float) -> DBusConnection:
    from jeepney.auth import AuthenticationError
    from jeepney.bus import get_connectable_addresses
    from jeepney.io.blocking import DBusConnection, prep_socket

    try:
        path = next(get_connectable_addresses(address))
    except (ValueError, KeyError, RuntimeError, StopIteration):
        raise RestartError(f"DBUS_SYSTEM_BUS_ADDRESS={address!r} is not an address such as {DEFAULT_BUS}") from None
    advice = _MOUNT
    try:
        stream = prep_socket(path, timeout=max(0.1, deadline - time.monotonic()))
        stream.settimeout(max(0.1, deadline - time.monotonic()))
        return DBusConnection(stream)
    except PermissionError as error:
        reason, advice = _words(error), _ADVICE["org.freedesktop.DBus.Error.AccessDenied"]
    except (AuthenticationError, BrokenPipeError, ConnectionResetError):
        # The bus hangs up on a user that the host does not know.
        reason, advice = "the bus does not accept this user", "run the container as root, without a user namespace"
    except ConnectionRefusedError as error:
        # A mounted socket file stays the old one when the host's D-Bus daemon starts again.
        reason, advice = _words(error), f"{_MOUNT}, not the socket file alone"
    except TimeoutError:
        reason = "no answer in time"
    except (OSError, ValueError) as error:
        reason = _words(error)
    raise RestartError(f"cannot reach the system bus at {address}: {reason}; {advice}")


def _restart(connection: DBusConnection, unit: str, deadline: float) -> None:
    from jeepney import DBusAddress, MatchRule, message_bus, new_method_call

    systemd = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", _MANAGER)
    finished = MatchRule(type="signal", interface=_MANAGER, member="JobRemoved", path=systemd.object_path)
    ended: deque[Message] = deque()
    with connection.filter(finished, queue=ended):
        _call(connection, message_bus.AddMatch(finished), deadline)
        _call(connection, new_method_call(systemd, "Subscribe"), deadline)  # else systemd sends no signals
        (job,) = _call(connection, new_method_call(systemd, "RestartUnit", "ss", (unit, "replace")), deadline)
        while True:
            signal = connection.recv_until_filtered(ended, timeout=_left(deadline))
            _, path, _, result = signal.body
            if path == job:
                break
    if result != "done":
        raise RestartError(
            f"systemd could not restart {unit} (job result {result!r}); see `systemctl status {unit}` and "
            f"`journalctl -u {unit}` on the node"
        )


def _call(connection: DBusConnection, message: Message, deadline: float) -> tuple[Any, ...]:
    """Call a method and return its results. Raises `RestartError` for an error answer, and TimeoutError."""
    from jeepney import MessageType
    from jeepney.low_level import HeaderFields

    answer = connection.send_and_get_reply(message, timeout=_left(deadline))
    if answer.header.message_type != MessageType.error:
        return tuple(answer.body)
    name = str(answer.header.fields.get(HeaderFields.error_name, "unknown error"))
    said = ": ".join([name, *(str(part) for part in answer.body[:1])])
    if name.startswith("org.freedesktop.DBus.Error.Spawn."):  # the bus tried to start systemd itself
        name = "org.freedesktop.DBus.Error.ServiceUnknown"
    advice = _ADVICE.get(name)
    raise RestartError(f"{said}; {advice}" if advice else said)


def _left(deadline: float) -> float:
    """Return the seconds that are left. Raises TimeoutError when none are."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _work(_: dict[str, Any]) -> bool:
    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_BUS
    try:
        restart(address, UNIT, TIMEOUT)
    except RestartError as error:
        child.say("ERROR", f"{UNIT} is not restarted (--restart-crio): {error}")
        return False
    child.say("INFO", f"restarted {UNIT}, which reads the new configuration")
    return True


if __name__ == "__main__":
    child.run(_work)

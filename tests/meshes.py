"""Small stand-ins for the installers of Istio CNI and Linkerd CNI, which chain their plugin into other configurations.

They do to the configuration directory what the real ones do, step by step and on real inotify:

- Istio: `cni/pkg/install` (`install.go`, `cniconfig.go`) and `pkg/file/file.go`, up to 1.26 and from 1.27 on;
- Linkerd from cni-plugin 1.7 on: `internal/cni` (`run.go`, `conf.go`, `remove.go`), in Go;
- Linkerd up to cni-plugin 1.6: `cni-plugin/deployment/scripts/install-cni.sh` with `filter.jq`.

Like them, each works from what it knows about the directory, ends its process on an error, and is started again.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import random
import select
import struct
import termios
import threading
import time
from collections import Counter
from decimal import Decimal

from tests.waiting import BOUND

ISTIO = {
    "cniVersion": "0.3.1",
    "name": "istio-cni",
    "type": "istio-cni",
    "ipam": {},
    "dns": {},
    "plugin_log_level": "info",
    "cni_agent_run_dir": "/var/run/istio-cni",
    "ambient_enabled": False,
    "enablement_selectors": [],
    "exclude_namespaces": ["kube-system"],
    "pod_namespace": "istio-system",
    "native_nftables": False,
    "enable_ambient_detection_retry": False,
}
LINKERD = {
    "name": "linkerd-cni",
    "type": "linkerd-cni",
    "log_level": "info",
    "kubernetes": {"kubeconfig": "/etc/cni/net.d/ZZZ-linkerd-cni-kubeconfig"},
    "linkerd": {"incoming-proxy-port": 4143, "outgoing-proxy-port": 4140, "proxy-uid": 2102, "ports-to-redirect": []},
}
CONVERTED_NAME = "k8s-pod-network"
"""What both call the list that they make of a single plugin."""


# ---- JSON as Go's encoding/json has it ----


def go_parse(content):
    """Read JSON into what a `map[string]any` holds: every number is a double, and no lone surrogates."""

    def number(digits):
        value = float(digits)
        if value in {float("inf"), float("-inf")}:
            raise ValueError(f"{digits[:20]} does not fit a float64")
        return value

    def refuse(name):
        raise ValueError(f"invalid character in {name}")

    text = content.decode("utf-8", "replace")
    return _whole(json.loads(text, parse_int=number, parse_float=number, parse_constant=refuse))


def _whole(value):
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return value


def go_format(value, margin=""):
    """Write JSON as `MarshalIndent(value, "", "  ")` does: sorted keys, shortest numbers, HTML's characters escaped."""
    inner = margin + "  "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{_go_string(key)}: {go_format(value[key], inner)}" for key in sorted(value)]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + go_format(each, inner) for each in value) + f"\n{margin}]"
    if isinstance(value, float | int) and not isinstance(value, bool):
        return _go_number(float(value))
    return _go_string(value) if isinstance(value, str) else json.dumps(value)


def _go_string(text):
    encoded = json.dumps(text, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return encoded


def _go_number(number):
    if number == 0 or 1e-6 <= abs(number) < 1e21:
        text = format(Decimal(repr(number)), "f")
        return text.removesuffix(".0")
    return repr(number).replace("e-0", "e-").replace(".0e", "e")


# ---- a directory and its events ----

CREATED, DELETED, MODIFIED, CLOSED = 0x100, 0x200, 0x2, 0x8
MOVED_FROM, MOVED_TO = 0x40, 0x80
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One watch on one directory."""

    ALL = CREATED | DELETED | MODIFIED | MOVED_FROM | MOVED_TO

    def __init__(self, directory, mask=ALL):
        self._idle, self.wakes = False, 0
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        assert _libc.inotify_add_watch(self._fd, os.fsencode(directory), mask) >= 0, os.strerror(ctypes.get_errno())

    def wait(self, stopping):
        """Return the next events as (mask, cookie, name). Raises `StoppedError` when the stop comes first."""
        self._idle = True
        ready, _, _ = select.select([self._fd, stopping], [], [])
        self._idle = False
        self.wakes += 1
        if stopping in ready:
            raise StoppedError
        return self.pending()

    def idle(self):
        """Say whether it is waited for the next event, and there is none."""
        return self._idle and not any(fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))

    def pending(self):
        events = []
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._fd, 1 << 16)
            while data:
                _, mask, cookie, length = struct.unpack_from("iIII", data)
                events.append((mask, cookie, data[16 : 16 + length].rstrip(b"\0").decode()))
                data = data[16 + length :]
        return events

    def close(self):
        os.close(self._fd)


class StoppedError(Exception):
    """The mesh was told to stop."""


_FAILURES = (OSError, ValueError, TypeError, KeyError, AttributeError)
"""A file that went away, or holds something else than was expected: an error in Go, which ends the process."""


class Mesh(threading.Thread):
    """An installer that runs beside the program.

    `lingers` are the seconds that it takes between two steps that belong together, as when the kernel lets something
    else run first.
    """

    plugin: dict
    restarts_after = 0.3
    """Seconds until kubelet starts it again after an error; really it is 10 s from the second time on."""

    def __init__(self, directory, bin_dir, lingers=0.0):
        super().__init__(daemon=True)
        self.directory, self.bin_dir, self.lingers = directory, bin_dir, lingers
        self.writes = Counter()
        """How often it wrote each configuration file, by name; counted before anybody can see it."""
        self.crashes = []
        self.failure = None
        self._listening = None
        self._told, self._tell = os.pipe()
        self._cleaning = True

    @property
    def type(self):
        return self.plugin["type"]

    @property
    def binary(self):
        return self.bin_dir / self.type

    def run(self):
        try:
            while True:
                try:
                    self.begin()
                    self.work()
                except StoppedError:
                    if self._cleaning:
                        self.clean_up()
                    return
                except _FAILURES as error:
                    self.crashes.append(repr(error))
                    self.crashed()
                    if select.select([self._told], [], [], self.restarts_after)[0]:
                        return
        except BaseException as error:
            self.failure = error
            raise

    def stop(self, *, clean_up=True):
        """End it: SIGTERM, or the SIGKILL that leaves everything as it is."""
        self._cleaning = clean_up
        os.write(self._tell, b".")
        self.join(BOUND)
        assert not self.is_alive() and self.failure is None, self.failure
        os.close(self._tell)
        os.close(self._told)

    @contextlib.contextmanager
    def listen(self, mask=Inotify.ALL):
        """Watch the directory."""
        with contextlib.closing(Inotify(self.directory, mask)) as inotify:
            before, self._listening = self._listening, inotify
            try:
                yield inotify
            finally:
                self._listening = before

    def rests(self):
        """Return what stays the same as long as only a new event makes it move; None while it is at work."""
        with contextlib.suppress(AttributeError, OSError):  # it has just begun or ended to listen
            if self._listening.idle():
                return self._listening, self._listening.wakes
        return None

    def install_binary(self):
        beside = self.binary.with_name(self.type + ".install")
        beside.write_bytes(b"\x7fELF of a mesh")
        beside.chmod(0o755)
        beside.rename(self.binary)

    def begin(self):
        """Start as a new process does, which knows nothing."""

    def work(self):
        """Do the work until `StoppedError`."""
        raise NotImplementedError

    def clean_up(self):
        """What it does at its end."""

    def crashed(self):
        """What it does when it ends on an error."""

    def linger(self):
        if self.lingers:
            time.sleep(self.lingers)


# ---- Istio ----


class SmallIstio(Mesh):
    """Istio's node agent: appends `istio-cni` to the first configuration that libcni can load, and keeps it there.

    It writes when its plugin is not in that list, and once after its start; what else is in the file does not matter to
    it. From 1.27 on (`remembers`) it stays with the file that was first when it started, and warns when another one
    precedes it. With `owned` (`istioOwnedCNIConfig`, ambient mode) it writes a copy with its plugin under that name,
    and does so again for as long as that name is not the first.
    """

    plugin = ISTIO

    def __init__(self, directory, bin_dir, *, remembers=True, primary="", owned="", **options):
        super().__init__(directory, bin_dir, **options)
        self.remembers, self.configured_primary, self.owned = remembers, primary, owned

    def begin(self):
        self._primary = self.configured_primary
        self._path = None
        self._free_at = 0.0

    def work(self):
        self._install()
        while True:
            self._throttle()
            self._until_something_happens()
            self._install()

    def crashed(self):
        self.clean_up()  # it is deferred in Go

    def _install(self):
        self.install_binary()
        fault = self._fault()
        if fault:
            self._path = self._write()

    def _throttle(self):
        """A limiter of one in five seconds, of which at most one second is waited for."""
        now = time.monotonic()
        delay = max(self._free_at - now, 0.0)
        self._free_at = max(self._free_at, now) + 5.0
        if delay and select.select([self._told], [], [], min(delay, 1.0))[0]:
            raise StoppedError

    def _until_something_happens(self):
        """Watch anew, look, then wait for any file of the directory to be created, written or removed."""
        with self.listen(CREATED | MODIFIED | DELETED | MOVED_TO) as inotify:
            if not self._fault():
                inotify.wait(self._told)

    def _fault(self):
        """Say why the configuration has to be written; None when it is as Istio wants it (`checkValidCNIConfig`)."""
        names = loadable(self.directory)
        if not names:
            return "no networks"
        first = names[0]
        if self.owned and first != self.owned:
            self._primary = self._primary or first
            return f"{first} is before its own"
        if self._path != self.directory / first and not self._primary:
            if self.remembers:
                self._primary = names[1] if first == self.owned and len(names) > 1 else first
            return f"preempted by {first}"
        if self._path is None or not self._path.exists():
            return "removed"
        try:
            types = [plugin["type"] for plugin in go_parse(self._path.read_bytes())["plugins"]]
            if self.type not in types:
                return "not in it"
            if self.owned:
                primary = go_parse(self._primary_path().read_bytes())
                if any(plugin["type"] not in types for plugin in primary["plugins"]):
                    return "a plugin of the primary is missing"
        except _FAILURES as error:
            return str(error)
        return None

    def _primary_path(self):
        """Return the configuration to build on, which is waited for (`getCNIConfigFilepath`)."""
        with self.listen(CREATED | MODIFIED | DELETED | MOVED_TO) as inotify:
            name = self._primary
            while not name:
                name = next(iter(loadable(self.directory)), "")
                if not name:
                    inotify.wait(self._told)
            while True:
                for each in (name, name + "list" if name.endswith(".conf") else name.removesuffix("list")):
                    if (self.directory / each).exists():
                        return self.directory / each
                inotify.wait(self._told)

    def _write(self):
        if self.owned and not self._primary:
            raise ValueError("primary CNI config name is not specified")
        path = self._primary_path()
        content = self._inserted(path.read_bytes())
        mode = path.stat().st_mode & 0o777
        self.linger()
        if self.owned:
            path = self.directory / self.owned
            mode = 0o600
        listed = path.with_name(path.name + "list") if path.suffix == ".conf" else path
        self.writes[listed.name] += 1
        self._replace(path, content, mode)
        if listed != path:
            self.linger()
            path.rename(listed)
        return listed

    def _inserted(self, content):
        document = go_parse(content)
        own = {key: value for key, value in self.plugin.items() if key != "cniVersion"}
        if "type" in document:
            single = {key: value for key, value in document.items() if key != "cniVersion"}
            document = {"cniVersion": "0.3.1", "name": CONVERTED_NAME, "plugins": [single, own]}
        else:
            document["plugins"] = [*without_first(document["plugins"], self.type), own]
        return (go_format(document) + "\n").encode()

    def _replace(self, path, content, mode):
        beside = path.with_name(f"{path.name}.tmp.{random.randrange(10**9)}")
        beside.touch(0o600)
        beside.chmod(mode)
        beside.write_bytes(content)
        beside.rename(path)

    def clean_up(self):
        with contextlib.suppress(*_FAILURES):
            if self._path is not None and self._path.exists():
                self.writes[self._path.name] += 1
                if self.owned:
                    self._path.unlink()
                else:
                    document = go_parse(self._path.read_bytes())
                    document["plugins"] = without_first(document["plugins"], self.type)
                    mode = self._path.stat().st_mode & 0o777
                    self._replace(self._path, (go_format(document) + "\n").encode(), mode)
            self.binary.unlink(missing_ok=True)


def loadable(directory):
    """Return the names that libcni could load of a directory, in order: what Istio calls valid."""
    names = []
    for name in sorted(os.listdir(directory)):
        if not name.endswith((".conf", ".conflist")) or (directory / name).is_dir():
            continue
        with contextlib.suppress(*_FAILURES):
            document = go_parse((directory / name).read_bytes())
            if name.endswith(".conf"):
                usable = bool(document["type"]) and isinstance(document.get("name", ""), str)
            else:
                plugins = document["plugins"]
                usable = isinstance(document["name"], str) and bool(plugins) and all(each["type"] for each in plugins)
            if usable:
                names.append(name)
    return names


def without_first(plugins, kind):
    """Return the plugins without the first one of this type: what both installers written in Go do."""
    at = next((index for index, plugin in enumerate(plugins) if plugin.get("type") == kind), None)
    return plugins if at is None else [*plugins[:at], *plugins[at + 1 :]]


# ---- Linkerd ----


class SmallLinkerd(Mesh):
    """Linkerd's installer in Go: puts `linkerd-cni` at the end of every configuration of the directory.

    It does so at its start and whenever a file is created, written or renamed, unless the bytes are the ones that it
    wrote there last. It takes its plugin out again at its end, in place, in the order in which it had come.
    """

    plugin = LINKERD
    kubeconfig = "ZZZ-linkerd-cni-kubeconfig"

    def begin(self):
        self._written = {}
        self._log = []

    def work(self):
        self.install_binary()
        with self.listen() as inotify:
            self._write(self.kubeconfig, b"kubeconfig")
            for name in sorted(os.listdir(self.directory)):
                self._reconfigure(name)
            while True:
                for mask, _, name in inotify.wait(self._told):
                    if mask & (CREATED | MOVED_TO | MOVED_FROM | MODIFIED):
                        self._reconfigure(name)

    def _reconfigure(self, name):
        if not name.endswith((".conf", ".conflist")):
            return
        try:
            content = (self.directory / name).read_bytes()
        except FileNotFoundError:
            return
        if self._written.get(name) == _hash(content):
            return
        merged = self._injected(content)
        self.linger()
        target = name + "list" if name.endswith(".conf") else name
        self.writes[target] += 1
        self._write(target, merged)
        if target not in self._log:
            self._log.append(target)
        self._written[target] = _hash(merged)
        if target != name:
            self.linger()
            (self.directory / name).unlink()  # a file that is not there any more is an error, and ends the process

    def _injected(self, content):
        document = go_parse(content)
        if "type" in document:
            single = {key: value for key, value in document.items() if key != "cniVersion"}
            document = {"cniVersion": "0.3.1", "name": CONVERTED_NAME, "plugins": [single, self.plugin]}
        else:
            document["plugins"] = [*without_first(document["plugins"], self.type), self.plugin]
        return go_format(document).encode()

    def _write(self, name, content):
        beside = self.directory / f"{name}.install"
        beside.write_bytes(content)
        beside.chmod(0o644)
        beside.rename(self.directory / name)

    def clean_up(self):
        self.binary.unlink(missing_ok=True)
        (self.directory / self.kubeconfig).unlink(missing_ok=True)
        for name in self._log:
            path = self.directory / name
            if not path.exists():
                continue
            document = go_parse(path.read_bytes())
            plugins = without_first(document["plugins"], self.type)
            if plugins is not document["plugins"]:
                document["plugins"] = plugins
                self._write_in_place(path, go_format(document).encode())

    def _write_in_place(self, path, content):
        self.writes[path.name] += 1
        with path.open("wb", buffering=0) as file:
            self.linger()
            file.write(content)


class SmallLinkerdScript(Mesh):
    """Linkerd's installer up to cni-plugin 1.6, a shell script around inotifywait and jq.

    It moves every file away and back at its start, patches it when that causes an event, and keeps the order of keys.
    It moves from another file system: for a moment there is no file, then an empty one. At its end it writes every list
    of the directory in place, without its plugin.
    """

    plugin = LINKERD
    kubeconfig = SmallLinkerd.kubeconfig

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.touches = Counter()
        """How often it put a file back as it was."""

    def begin(self):
        self._written = {}

    def work(self):
        self.install_binary()
        with self.listen(CREATED | MOVED_TO | MODIFIED) as inotify:
            for name in os.listdir(self.directory):
                path = self.directory / name
                if name.endswith(("conf", "conflist")) and path.is_file():
                    self.touches[name] += 1
                    self._move(path.read_bytes(), path, path.stat().st_mode & 0o777)
            while True:
                for _, _, name in inotify.wait(self._told):
                    if name.endswith((".conf", ".conflist")):
                        self._sync(name)

    def _sync(self, name):
        path = self.directory / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        if self._written.get(name) == _hash(content):
            return
        (self.directory / self.kubeconfig).write_bytes(b"kubeconfig")
        try:
            merged = self._filtered(content)
        except (ValueError, TypeError):
            return  # jq's failure is passed over
        target = path.with_name(name + "list") if name.endswith(".conf") else path
        self._written[target.name] = _hash(merged)
        self.writes[target.name] += 1
        self._move(merged, target, 0o644)
        if target != path:
            self.linger()
            path.unlink(missing_ok=True)

    def _filtered(self, content):
        document = json.loads(content)
        if "type" in document:
            single = {key: value for key, value in document.items() if key != "cniVersion"}
            document = {"plugins": [single, self.plugin], "name": CONVERTED_NAME, "cniVersion": "0.3.0"}
        else:
            others = [plugin for plugin in document.get("plugins") or [] if plugin.get("type") != self.type]
            document["plugins"] = [*others, self.plugin]
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    def _move(self, content, target, mode):
        """Do what mv does from one file system to another."""
        target.unlink(missing_ok=True)
        self.linger()
        with target.open("xb", buffering=0) as file:
            self.linger()
            file.write(content)
            os.fchmod(file.fileno(), mode)

    def clean_up(self):
        for path in self.directory.iterdir():
            if path.name.endswith("conflist") and path.is_file():
                document = json.loads(path.read_bytes())
                document["plugins"] = [plugin for plugin in document["plugins"] if plugin.get("type") != self.type]
                self.writes[path.name] += 1
                with path.open("wb", buffering=0) as file:
                    self.linger()
                    file.write((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
        (self.directory / self.kubeconfig).unlink(missing_ok=True)
        self.binary.unlink(missing_ok=True)


def _hash(content):
    return hashlib.sha256(content).hexdigest()


# ---- who wrote what ----


class Ledger:
    """Keeps account of what happens to the configurations of a directory, and which of it the program did."""

    def __init__(self, directory, program_prefix):
        self._inotify = Inotify(directory, CREATED | DELETED | MODIFIED | MOVED_FROM | MOVED_TO | CLOSED)
        self._prefix = program_prefix
        self._moving = {}
        self._events = []
        self._program = Counter()

    @property
    def events(self):
        """What happened: the mask of inotify, the name, and the name before of what was renamed."""
        self._look()
        return self._events

    @property
    def program(self):
        """How often the program wrote each configuration file, by name."""
        self._look()
        return self._program

    def forget(self):
        """Count from now on."""
        self._look()
        self._events, self._program = [], Counter()

    def close(self):
        self._inotify.close()

    def _look(self):
        for mask, cookie, name in self._inotify.pending():
            if mask & MOVED_FROM:
                self._moving[cookie] = name
            if not name.endswith((".conf", ".conflist")):
                continue
            source = self._moving.get(cookie, "") if mask & MOVED_TO else ""
            self._events.append((mask, name, source))
            if source.startswith(self._prefix):
                self._program[name] += 1

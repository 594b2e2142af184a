"""A host directory in a scratch place, and the real program running on it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from tests import forking
from tests.forking import EXECED, Forked
from tests.waiting import BOUND, until

DATA = Path(__file__).parent.parent / "data"
MASTERS = DATA / "master-confs"

ALIVE = ".alive"
"""How the files end by which instances know of each other."""
SLEEPING = {
    "x86_64": {"0": None, "7": 2, "61": None, "202": 3},  # read, poll, wait4, futex
    "aarch64": {"63": None, "73": 2, "98": 3, "260": None},  # read, ppoll, futex, wait4
}[os.uname().machine]
"""The system calls in which a thread may sleep, and which of their arguments limits the sleep."""
NO_LIMIT = {0, (1 << 32) - 1, (1 << 64) - 1}
"""No pointer to a time, or -1. A `poll` with a limit of 0 does not sleep."""

FLANNEL = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
MULTUS = {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "delegates": [FLANNEL]}


def _limit(number, *arguments):
    """Return the limit of a sleep, in milliseconds or where it stands in memory, from a thread's file `syscall`."""
    if number not in SLEEPING:
        return 0
    place = SLEEPING[number]
    limit = 0 if place is None else int(arguments[place], 16)
    return float("inf") if limit in NO_LIMIT else limit


def watches(program):
    """Say whether the watch is at work: it has a thread of its own."""
    return len(os.listdir(f"/proc/{program.pid}/task")) > 1


def stays(condition, seconds):
    """Assert that a condition holds all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition()
        time.sleep(0.002)


def settled(*programs, waiting=False):
    """Wait until the programs are at rest."""
    until(
        lambda: at_rest(*programs, waiting=waiting) or not all(program.running() for program in programs),
        lambda: "\n".join(f"rest of {each.pid}, {each.sleeps()}:\n{each.log}" for each in programs),
    )
    for program in programs:
        assert program.running(), program.log


def at_rest(*programs, waiting=False):
    """Say whether all that has happened has been followed: nothing but something new, or a signal, makes one move.

    No thread has been given a CPU while each of them was seen to sleep without a limit of time. An event is there for a
    program's thread before the call returns that caused it. One that is `waiting` says so every 30 s, no more often.
    """
    least = 10_000 if waiting else float("inf")
    before = [program.switches() for program in programs]
    asleep = all(min(program.sleeps().values(), default=0) >= least for program in programs)
    return asleep and before == [program.switches() for program in programs]


class Volume:
    """A directory as kubelet mounts a projected volume: NAME -> ..data/NAME, ..data -> ..TIMESTAMP."""

    def __init__(self, path, **files):
        self.path = path
        self._made = 0
        self.keeps_old = False
        path.mkdir(parents=True)
        self.update(**files)

    def update(self, mode=0o644, **files):
        """Do what kubelet's AtomicWriter does: a new directory, and `..data` swapped by a rename."""
        self._made += 1
        new = self.path / f"..2026_11_23_10_20_{self._made:02d}.{1000 + self._made}"
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content if isinstance(content, bytes) else content.encode())
            (new / name).chmod(mode)
        data = self.path / "..data"
        old = data.readlink() if data.is_symlink() else None
        (self.path / "..data_tmp").symlink_to(new.name)
        (self.path / "..data_tmp").rename(data)
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for link in self.path.iterdir():
            if not link.name.startswith("..") and link.name not in files:
                link.unlink()
        if old is not None and not self.keeps_old:
            shutil.rmtree(self.path / old)


class Program:
    """The real program, started."""

    def __init__(self, process, log_file):
        self.process = process
        self.pid = process.pid
        self._log_file = log_file

    @property
    def log(self):
        """What it has written to stderr."""
        return self._log_file.read_text("utf-8", "backslashreplace")

    def lines(self, *parts):
        """Return the lines of the log that hold all these parts."""
        return [line for line in self.log.splitlines() if all(part in line for part in parts)]

    def says(self, *parts):
        """Wait for a line of the log that holds all these parts; return it."""
        return until(lambda: self.lines(*parts), lambda: f"{parts} to be said:\n{self.log}")[0]

    def running(self):
        return self.process.poll() is None

    @property
    def returncode(self):
        """The exit code; None while it runs."""
        return self.process.poll()

    def ends(self):
        """Wait for the end; return the exit code."""
        if isinstance(self.process, subprocess.Popen) and self.running():
            # `Popen.wait` with a time-out would look every 50 ms only; the descriptor tells of the end at once. Who
            # traces the program is told of it first, and only then may we reap.
            descriptor = os.pidfd_open(self.pid)
            select.select([descriptor], [], [], BOUND)
            os.close(descriptor)
        return self.process.wait(BOUND)

    def stop(self, number=signal.SIGTERM):
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.ends()

    def freeze(self):
        """Stop it where it is."""
        self.process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{self.pid}/stat")
        until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", what="its stop")

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def switches(self):
        """Return how often each of its threads has gone to sleep, or has lost its CPU."""
        said = dict(self._of_threads("status"))
        return {thread: [line for line in said[thread].splitlines() if "ctxt_switches" in line] for thread in said}

    def sleeps(self):
        """Return for how many milliseconds each thread sleeps in a system call at most; 0 for one that does not."""
        return {int(thread): _limit(*said.split()) for thread, said in self._of_threads("syscall")}

    def _of_threads(self, name):
        """Yield each thread with what the kernel says of it; none after its end."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # denied during an exec
            for task in sorted(Path(f"/proc/{self.pid}/task").iterdir()):
                yield task.name, (task / name).read_text()

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ScratchHost:
    """The directories that the DaemonSet mounts, below one scratch directory."""

    def __init__(self, root, conf_dir="host/etc/cni/net.d"):
        self.root = root
        self.conf_dir = root / conf_dir
        self.bin_dir = root / "host/opt/cni/bin"
        self.image = root / "image"
        self.multus = self.image / "multus"
        self.ready = root / "run/ready"
        self.logs = root / "logs"
        for directory in (self.conf_dir, self.bin_dir, self.image, self.ready.parent, self.logs):
            directory.mkdir(parents=True)
        self.multus.write_bytes(b"\x7fELF the multus binary\n" * 100)
        self.multus.chmod(0o755)
        self.account = Volume(root / "serviceaccount", **{"token": "token-1", "ca.crt": "CERTIFICATE 1\n"})
        self.installed = self.bin_dir / "multus"
        self.kubeconfig = self.conf_dir / "multus.d/multus.kubeconfig"
        self.conf = self.conf_dir / "00-multus.conf"
        self.conflist = self.conf_dir / "00-multus.conflist"
        self.patience = None
        """For how many seconds the program waits for a mesh, if not for its own times."""
        self._starts = 0

    # ---- the other parties on a node ----

    def master(self, name="10-flannel.conflist", document=FLANNEL, *, directory=None, **changes):
        """Write a master, a document or text, as its owner does well: beside it and renamed."""
        path = (directory or self.conf_dir) / name
        beside = path.with_name(path.name + ".new")
        beside.write_text(document if isinstance(document, str) else json.dumps({**document, **changes}))
        return beside.rename(path)

    def rotate(self, token="token-1", authority="CERTIFICATE 1\n"):
        self.account.update(**{"token": token, "ca.crt": authority})

    # ---- what is on it ----

    def names(self):
        return sorted(os.listdir(self.conf_dir))

    def wraps(self, **expected):
        """Say whether the configuration of this moment wraps a master with these values."""
        delegate = self.delegate()
        return delegate is not None and all(delegate.get(key) == value for key, value in expected.items())

    def delegate(self):
        """Return the wrapped master; None when there is no configuration. What is there must be whole."""
        for path in (self.conf, self.conflist):
            with contextlib.suppress(FileNotFoundError):
                document = json.loads(path.read_bytes())
                return document.get("plugins", [document])[0]["delegates"][0]
        return None

    def has_token(self, token):
        with contextlib.suppress(FileNotFoundError):
            return f'token: "{token}"' in self.kubeconfig.read_text()
        return False

    def snapshot(self, *trees, exact=False):
        """Return everything that a write would change, of the given trees or of all that the host owns.

        Unless it is to be `exact`, but for the files by which instances know of each other, and so for the times of the
        directory that has them.
        """
        found = {}
        for tree in trees or (self.conf_dir, self.bin_dir, self.ready.parent):
            for path in [tree, *tree.rglob("*")]:
                if path.name.endswith(ALIVE) and not exact:
                    continue
                status = path.lstat()
                if path == self.kubeconfig.parent and not exact:
                    found[str(path)] = (status.st_mode, status.st_ino)
                    continue
                content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
                found[str(path)] = (status.st_mode, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, content)
        return found

    # ---- the program ----

    def arguments(self, *words):
        """Return the command line of the program: the paths of this host, and these words."""
        return [
            f"--cni-conf-dir={self.conf_dir}",
            f"--cni-bin-dir={self.bin_dir}",
            f"--multus-bin-file={self.multus}",
            f"--service-account-dir={self.account.path}",
            f"--ready-file={self.ready}",
            "--multus-conf-file=auto",
            *words,
        ]

    def flags(self):
        return self.arguments()

    def command(self, *words):
        return [sys.executable, "-m", "entrypoint", *self.arguments(*words)]

    def environ(self, **more):
        """Return the environment of a container: next to nothing. A value of None leaves a variable out."""
        usual = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        merged = {"PATH": os.environ["PATH"], **usual, **more}
        return {key: value for key, value in merged.items() if value is not None}

    def environment(self, env=None):
        return self.environ(**(env or {}))

    def launch(self, *words, env=None, prefix=(), execed=False, **files):
        """Start the program by `exec`, which a prefix needs, or else by a fork that costs a tenth."""
        place = {"env": self.environ(**(env or {})), "cwd": self.root}
        if prefix or execed or any(name.startswith(EXECED) for name in env or ()):
            return subprocess.Popen([*prefix, *self.command(*words)], **place, **files)
        return Forked(self.arguments(*words), **place, **files, patience=self.patience)

    def run(self, *words, env=None, execed=False):
        """Run a program that ends by itself."""
        place = {"env": self.environ(**(env or {})), "cwd": self.root}
        if execed:
            ran = subprocess.run(
                self.command(*words), **place, capture_output=True, encoding="utf-8", errors="backslashreplace"
            )
        else:
            ran = forking.run(self.arguments(*words), **place, errors="backslashreplace")
        assert "Traceback" not in ran.stderr, ran.stderr
        assert "unexpected" not in ran.stderr, ran.stderr
        return ran

    @contextlib.contextmanager
    def start(self, *flags, env=None, prefix=(), execed=False):
        """Start the program; it is killed at the end, and its log must not hold a traceback."""
        self._starts += 1
        log_file = self.logs / f"{self._starts}.log"
        with log_file.open("wb") as log:
            process = self.launch(*flags, env=env, prefix=prefix, execed=execed, stderr=log, stdout=log)
        program = Program(process, log_file)
        try:
            yield program
        except BaseException:
            print(f"---- log {self._starts} ----\n{program.log}\n---- {self.conf_dir} ----\n{self.names_or_none()}")
            raise
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in program.log, program.log
        assert "unexpected" not in program.log, program.log

    @contextlib.contextmanager
    def configured(self, *flags, env=None, **changes):
        """Start the program on a host with a master, and wait until the node is configured and watched."""
        if not any(name.endswith((".conf", ".conflist")) for name in self.names()):
            self.master(**changes)
        self.ready.unlink(missing_ok=True)  # a killed run's
        with self.start(*flags, env=env) as program:
            self.until_ready(program)
            until(lambda: watches(program), what="the watch")
            yield program

    def until_ready(self, program):
        until(lambda: self.ready.exists() or not program.running(), lambda: f"readiness:\n{program.log}")
        assert program.running(), program.log

    def names_or_none(self):
        try:
            return self.names()
        except OSError:
            return None


def overwrite(path, content):
    """Write in place, as careless owners do."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def replace(path, content, mode=None):
    """Write beside and rename over, as careful owners do."""
    beside = path.with_name(path.name + ".beside")
    overwrite(beside, content)
    if mode is not None:
        beside.chmod(mode)
    beside.rename(path)


def vanish(directory):
    """Remove a directory with all that is in it, although the program may put a file back in the midst of it."""
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)


def file_id(path):
    """Return what tells one file from the next under the same name; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


class Pod:
    """What one pod has of its own on a host that it shares with others: token, binary, ready file, flags."""

    def __init__(self, host, name, *flags):
        self.host = host
        self.name = name
        self.token = f"token-of-{name}"
        self.ready = host.ready.parent / name
        self.account = Volume(host.root / f"serviceaccount-{name}", **{"token": self.token, "ca.crt": "CERTIFICATE\n"})
        self.binary = host.image / name / "multus"
        self.binary.parent.mkdir()
        self.binary.write_bytes(f"\x7fELF of {name}\n".encode() * 1000)
        self.binary.chmod(0o755)
        self.flags = (
            f"--service-account-dir={self.account.path}",
            f"--multus-bin-file={self.binary}",
            f"--ready-file={self.ready}",
            f"--multus-log-file=/var/log/{name}",
            "--multus-log-level=error",
            *flags,
        )

    def start(self, prefix=(), *, execed=False):
        """Start the program of this pod, as a context."""
        return self.host.start(*self.flags, prefix=prefix, execed=execed)

    @contextlib.contextmanager
    def running(self, prefix=(), *, execed=False):
        """Start the program of this pod, and wait until it is ready."""
        self.ready.unlink(missing_ok=True)  # a killed run's
        with self.start(prefix, execed=execed) as program:
            until(lambda: self.ready.exists() or not program.running(), what=f"the readiness of {self.name}")
            until(lambda: self.owns() or not program.running(), what=f"what {self.name} writes")
            assert program.running(), program.log
            until(lambda: watches(program), what="the watch")
            yield program

    def owns(self):
        """Say whether all three outputs are this pod's."""
        with contextlib.suppress(FileNotFoundError):
            return (
                self.host.has_token(self.token)
                and self.host.installed.read_bytes() == self.binary.read_bytes()
                and f"/var/log/{self.name}" in self.host.conf.read_text()
            )
        return False


def presences(host):
    """Return the files by which instances know of each other."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path for path in host.kubeconfig.parent.iterdir() if path.name.endswith(ALIVE))
    return []


def open_files(pid):
    """Return what a process has open at this moment."""
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(entry.path))
        except OSError:
            continue
    return found

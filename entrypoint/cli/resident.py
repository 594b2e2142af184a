"""The entrypoint that runs in the same container: what it was told, so that nobody has to say it again.

`kubectl exec POD -- multus-entrypoint check` looks at what that one cares for, and so needs its flags and environment.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import click

from entrypoint.cli import flags, options
from entrypoint.cli.options import PeerCommand

PROC = Path("/proc")
_NAMES = frozenset({"multus-entrypoint", "entrypoint.sh", "thin_entrypoint"})
"""What the resident program is called by; `install_multus` copies a binary and ends."""
_SUBCOMMANDS = frozenset({"check", "uninstall", "install"})
_MODULE = "entrypoint"
_WITH_VALUE = ("-W", "-X")
"""Options of Python whose value may be the next word."""

_VARIABLES = frozenset({"KUBE_CA_FILE", "SKIP_TLS_VERIFY", "KUBECONFIG_MODE", "NODE_NAME"})
_CLUSTER = "KUBERNETES_SERVICE_"


class Running(NamedTuple):
    """A process that is this program."""

    pid: int
    name: str
    """What it was called by: a peer's name brings the peer's habits."""
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    """Those of its variables that this program reads."""

    def __str__(self) -> str:
        """Return it as messages name it: its flags, and what its environment sets of them."""
        set_there = [f"{name}={value}" for name, value in self.environment.items() if name.startswith(options.PREFIX)]
        return f"process {self.pid} in this container: {shlex.join([*set_there, *self.arguments]) or 'no flags'}"


def take_over(context: click.Context, proc: Path = PROC) -> str | None:
    """Take the flags and the environment of the entrypoint of this container; say which, None when nothing is to say.

    What stands on the own command line wins. An entrypoint for another `--cni-conf-dir` than that is not meant.
    """
    own = options.said(context)
    for running in processes(proc):
        values = _values(running)
        if values is None or Path(own.get("cni_conf_dir", values["cni_conf_dir"])) != Path(values["cni_conf_dir"]):
            continue
        _set_environment(running.environment)
        context.meta[options.TAKEN] = {name: value for name, value in values.items() if name != "dry_run"}
        context.meta[options.TAKEN_FROM] = running.pid
        return f"the flags are those of {running}"
    if own.keys() - {"dry_run", "log_format"}:
        return None
    return "no entrypoint runs in this container: all flags have their defaults, or what the environment sets"


def _values(running: Running) -> dict[str, Any] | None:
    """Return what the flags of a process mean; None when it is no resident one: a subcommand, a dry run."""
    thin = running.name == "thin_entrypoint"
    command = PeerCommand(None, params=[*(flags.thin() if thin else flags.ENTRYPOINT)], add_help_option=False)
    try:
        with _environment(running.environment):
            context = command.make_context(running.name, [*running.arguments])
    except click.ClickException:
        return None  # it asks for help, or is about to end over its flags
    values = options.chosen(context)
    return None if values["dry_run"] or _SUBCOMMANDS.intersection(context.args) else values


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have these variables for a while in place of our own: click looks into `os.environ`."""
    before = dict(os.environ)
    _set_environment(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _set_environment(variables: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if _is_read(name)]:
        del os.environ[name]
    os.environ.update(variables)


def processes(proc: Path = PROC) -> Iterator[Running]:
    """Yield the processes of this container that are this program, process 1 first; not this one and its ancestors.

    Where the pod shares its process namespace, or the host's, those of other containers can be seen too: what has
    another mount namespace or root directory sees other files under the same paths.
    """
    try:
        own = _place(proc, "self")
    except OSError:
        return  # no Linux as we know it, such as gVisor
    ancestors = set(_ancestors(proc))
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        if pid in ancestors:
            continue
        with suppress(OSError):  # it has ended meanwhile, or is none of ours
            called = _called(_words(proc / str(pid) / "cmdline"))
            if called is None or _place(proc, str(pid)) != own:
                continue
            variables = dict(word.partition("=")[::2] for word in _words(proc / str(pid) / "environ"))
            yield Running(pid, *called, {name: variables[name] for name in variables if _is_read(name)})


def _is_read(name: str) -> bool:
    return name.startswith((options.PREFIX, _CLUSTER)) or name in _VARIABLES


def _called(words: list[str]) -> tuple[str, tuple[str, ...]] | None:
    """Return by what name, and with what arguments, this program was started; None for another program's words.

    A script's words begin with its interpreter, and its name stays the one that it was called by, links or not.
    """
    if not words or not os.path.basename(words[0]).startswith("python"):
        return None
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "-m":
            return (_MODULE, tuple(rest[1:])) if rest[:1] == [_MODULE] else None
        if option == "-c":
            return None
        if option in _WITH_VALUE and rest:
            rest.pop(0)
    name = os.path.basename(rest[0]) if rest else ""
    return (name, tuple(rest[1:])) if name in _NAMES else None


def _ancestors(proc: Path) -> Iterator[int]:
    """Yield this process and those above it: a shell that runs `check` may bear the program's name in its words."""
    pid = os.getpid()
    while pid > 0:
        yield pid
        try:
            # The name, which stands in parentheses, may hold anything.
            fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return
        pid = int(fields[1])


def _place(proc: Path, pid: str) -> tuple[str, int, int]:
    """Return what tells apart who sees which files. Raises OSError for a process that may not be looked at."""
    root = os.stat(proc / pid / "root")
    return os.readlink(proc / pid / "ns/mnt"), root.st_dev, root.st_ino


def _words(path: Path) -> list[str]:
    return [os.fsdecode(word) for word in path.read_bytes().split(b"\0")[:-1]]

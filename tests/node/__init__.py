"""A scratch node for unit tests: the parts of one instance, real files, and no time but a number."""

import json
import os
from pathlib import Path

from entrypoint.node.decision import decide, parts
from entrypoint.node.ledger import Ledger
from entrypoint.node.part import Before, Leaving
from entrypoint.node.steps import Doing
from entrypoint.telling.pace import earliest
from entrypoint.uninstall.uninstall import take_away
from tests.flags import DATA, IN_CLUSTER, MASTERS, settings_for

__all__ = ("CRIO", "DATA", "FLANNEL", "IN_CLUSTER", "MASTERS", "Node", "scratch", "settings_for", "snapshot")

FLANNEL = (MASTERS / "10-flannel.conflist").read_bytes()
CRIO = (MASTERS / "11-crio-ipv4-bridge.conflist").read_bytes()
CONF, LIST = "00-multus.conf", "00-multus.conflist"


def scratch(root: Path) -> Path:
    """Lay out what a node and a pod have before anything runs."""
    for name in ("net.d", "bin", "src", "sa"):
        (root / name).mkdir(parents=True)
    (root / "src/multus").write_bytes(b"\x7fELF multus")
    (root / "src/multus").chmod(0o755)
    (root / "sa/token").write_text("token-1")
    (root / "sa/ca.crt").write_text("CA 1\n")
    return root


def snapshot(root):
    """Everything below a directory that a write or a touch would change."""
    found = {}
    for directory, _, entries in os.walk(root):
        for path in [directory, *(os.path.join(directory, entry) for entry in entries)]:
            status = os.lstat(path)
            found[path] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


class Node:
    """A node, and one instance that looks at it and decides when it is asked, at the time `now`."""

    def __init__(self, root, *flags, environ=None):
        self.root = root if (root / "src").exists() else scratch(root)
        self.now = 100.0
        self.start(*flags, environ=environ)
        self.directory.mkdir(parents=True, exist_ok=True)

    def start(self, *flags, environ=None):
        """Start an instance, which knows nothing of the one before; without flags with the same."""
        if flags or not hasattr(self, "settings"):
            self.settings = settings_for(self.root, *flags, environ=environ)
        self.directory = self.settings.cni_conf_dir
        self.ledger = Ledger(self.settings.ledger_file)
        self.parts = parts(self.settings, self.ledger, clock=lambda: self.now)
        self.started, self.configured, self.ready = self.now, False, False

    def put(self, name, content):
        """Write a file, in place and whole, into the directory of masters."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (self.settings.autoconfig_dir / name).write_bytes(raw)

    def decide(self, **before):
        """Ask the parts."""
        end = float("inf") if self.configured else self.started + self.settings.wait_timeout
        known = Before(configured=self.configured, in_use=self.ready, give_up_at=end)
        return decide(self.parts, self.ledger, known._replace(**before))

    def do(self, steps):
        for step in steps:
            step.do(Doing(self.ledger, lambda: False))
        self.ledger.save()

    def once(self):
        """Make one pass; say whether there was anything to do."""
        decision = self.decide()
        steps = self.steps(decision) or [step for wish in decision.wishes for step in wish.afterwards]
        self.do(steps)
        self.ready = decision.ready
        self.configured = self.configured or decision.ready
        return bool(steps)

    def settle(self):
        """Make passes until nothing is left to be done; return what is decided then."""
        for _ in range(6):
            if not self.once():
                return self.decide()
        raise AssertionError("it does not come to rest")

    def rest(self):
        """Do the same until nothing is given time any more, whatever time that takes."""
        for _ in range(9):
            decision = self.settle()
            until = self.until(decision)
            if until is None:
                return decision
            self.now = until
        raise AssertionError("it waits for ever")

    def uninstall(self):
        """Take away what is ours; return the names of what was removed, in their order."""
        self.ledger.save()
        said = []
        take_away(self.settings, force=False, say=said.append)
        return [os.path.basename(line.split(":")[0]) for line in said if line.startswith("removed") and ":" in line]

    def leave(self, *, hooked=()):
        """Take away what must not stay; return the names of what was touched, in their order."""
        self.ledger.load()
        steps = []
        for part in reversed(self.parts):
            steps += part.leave(part.look(), Before(self.ledger.says), Leaving(frozenset(hooked)))
        self.do(steps)
        return [step.path.name for step in steps if step.did]

    def document(self, name=None):
        """Return the configuration that stands."""
        names = [name] if name else [each for each in self.names() if each.startswith("00-multus.")]
        (found,) = names
        return json.loads((self.directory / found).read_bytes())

    @property
    def delegate(self):
        """The wrapped network, as Multus is given it."""
        document = self.document()
        return document.get("plugins", [document])[0]["delegates"][0]

    def names(self):
        return sorted(name for name in os.listdir(self.directory) if name != "multus.d")

    @staticmethod
    def steps(decision):
        return [step for wish in decision.wishes for step in wish.steps]

    @staticmethod
    def touched(decision):
        """Return the names of what is to be changed, in their order."""
        return [step.path.name for wish in decision.wishes for step in wish.steps if step.would]

    @staticmethod
    def until(decision):
        return earliest(*(wish.until for wish in decision.wishes))

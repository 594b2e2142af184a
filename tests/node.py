"""A scratch node for unit tests: settings that point below a directory, and masters to wrap."""

import hashlib
import json
from pathlib import Path

from entrypoint.node.values import Binary, Candidate, Memory, Plan, Remove, Rename, Seen, Write

from entrypoint.cni.document import examine
from entrypoint.disk.looks import Absent, File
from entrypoint.settings import Settings
from tests.flags import DATA, IN_CLUSTER, MASTERS, click_error, flags, options, settings_for

__all__ = ("DATA", "IN_CLUSTER", "MASTERS", "click_error", "flags", "options", "settings_for")

FLANNEL = (MASTERS / "10-flannel.conflist").read_bytes()
CRIO = (MASTERS / "11-crio-ipv4-bridge.conflist").read_bytes()


def scratch(root: Path) -> Path:
    """Lay out what a node and a pod have before anything runs."""
    for name in ("net.d", "bin", "src", "sa"):
        (root / name).mkdir(parents=True)
    (root / "src/multus").write_bytes(b"\x7fELF multus")
    (root / "src/multus").chmod(0o755)
    (root / "sa/token").write_text("token-1")
    (root / "sa/ca.crt").write_text("CA 1\n")
    return root


def master(name: str, content: bytes | dict[str, object], since: float = 0.0) -> Candidate:

    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Candidate(name, examine(raw), since, hashlib.sha256(raw).hexdigest())


def seen(wanted: Settings, **changes: object) -> Seen:
    """A node on which nothing was installed yet, with a pod that has all it needs."""
    files = {path.name: Absent() for path in wanted.output_files}
    start = Seen(
        now=100.0,
        missing_dirs=(),
        token=File(b"token-1", 0o600, (1, 1, 0)),
        certificate_authority=File(b"CA 1\n", 0o644, (1, 2, 0)),
        kubeconfig=Absent(),
        binary=Binary(None, installed=False),
        static=None,
        patch=None,
        outputs=files,
    )
    return start._replace(**changes)


def after(wanted: Settings, before: Seen, plan: Plan) -> Seen:
    """The node that a plan leaves behind."""
    outputs, candidates, retired = dict(before.outputs), before.candidates, before.retired
    kubeconfig, record = before.kubeconfig, before.record
    for step in plan.steps:
        match step:
            case Write() if step.path == wanted.kubeconfig_file:
                kubeconfig = File(step.content, step.mode, (9, 1, 0))
            case Write() if step.path == wanted.record_file:
                record = File(step.content, step.mode, (9, 3, 0))
            case Write():
                outputs[step.path.name] = File(step.content, step.mode, (9, 2, 0))
            case Remove():
                outputs[step.path.name] = Absent()
            case Rename():
                moved = next(each for each in candidates if each.name == step.path.name)
                candidates = tuple(each for each in candidates if each is not moved)
                retired = (*(each for each in retired if each.name != moved.name), moved)
    return before._replace(
        outputs=outputs,
        candidates=candidates,
        retired=tuple(sorted(retired, key=lambda each: each.name)),
        record=record,
        kubeconfig=kubeconfig,
        binary=Binary(None, installed=True),
    )


START = Memory(started=100.0)

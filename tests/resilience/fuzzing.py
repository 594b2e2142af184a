"""What must hold for any bytes: shared by the hypothesis tests and the coverage-guided run.

`python -m tests.resilience.fuzzing SECONDS CORPUS` runs atheris, which is no requirement of ours: pip install atheris.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from entrypoint.cni.document import Master, Unusable, Verdict, equal, examine, parse
from entrypoint.disk.looks import Absent, File
from entrypoint.node import configuration, kubeconfig, master
from entrypoint.node.ledger import Ledger
from entrypoint.node.part import Before
from entrypoint.node.steps import Write
from tests.flags import settings_for

CORPUS = Path(__file__).parent / "corpus"
FLAGS = [(), ("--cni-version=1.0.0",), ("--cni-version=0.4.0", "--force-cni-version"), ("--rename-conf-file",)]
SETTINGS = [settings_for(Path("/nowhere"), *flags) for flags in FLAGS]
STATIC = settings_for(Path("/nowhere"), "--multus-conf-file=/images/70-multus.conf")


def wished(wanted, source):
    """Return the configuration's wish on a node that has nothing but this source, and what it writes."""
    part = configuration.Configuration(wanted, Ledger(wanted.ledger_file))
    wish = part.wish(configuration.Seen(0.0, source=source), Before())
    return wish, next((step for step in wish.steps if isinstance(step, Write)), None)


def as_master(content):
    """A master of this content is wrapped as it is, or refused with a reason."""
    verdict = examine(content, "10-x.conf")
    assert isinstance(verdict, Verdict)
    broken_since = -100.0 if isinstance(verdict, Unusable) else None
    candidate = master.Candidate("10-x.conf", verdict, -100.0, broken_since, hashlib.sha256(content).hexdigest())
    for wanted in SETTINGS:
        wish, write = wished(wanted, master.Seen(0.0, (candidate,)))
        if isinstance(verdict, Unusable):
            assert write is None and verdict.reason and "\n" not in verdict.reason
        if isinstance(verdict, Master):
            assert write or wish.faults or wish.waits
        if write:
            _wraps(write, content, wanted)
    return verdict


def _wraps(step, content, wanted):
    """What is kept of it is as it was, read as Go does; what makes the network is kept."""
    document = json.loads(step.content)
    delegate = document.get("plugins", [document])[0]["delegates"][0]
    given = parse(content)
    changed = {"cniVersion"} if wanted.force_cni_version or not given.get("cniVersion") else set()
    assert {"name", "type", "plugins", "ipam"} & given.keys() <= delegate.keys()
    for key in delegate.keys() - changed:
        assert equal(delegate[key], given[key])


def as_account(token, authority):
    """A kubeconfig that says exactly what was in the files, or a reason."""
    import yaml

    files = (File(content, 0o644, (0, number, 0)) for number, content in enumerate((token, authority)))
    wish = kubeconfig.Kubeconfig(SETTINGS[0]).wish(kubeconfig.Seen(True, *files, Absent()), Before())
    if not wish.steps:
        assert wish.faults
        return
    (write,) = wish.steps
    document = yaml.safe_load(write.content)
    assert document["users"][0]["user"]["token"] == token.decode("ascii").strip()


def as_static(content):
    """A static configuration is copied as it is, or refused."""
    wish, write = wished(STATIC, File(content, 0o644, (0, 3, 0)))
    if write is None:
        assert wish.faults
        return
    assert write.content == content
    json.loads(content.decode("utf-8", "replace"))


def _one_input(data):
    kind, content = data[:1], data[1:]
    if kind < b"\x40":
        as_account(content, b"CA")
    elif kind < b"\x60":
        as_static(content)
    else:
        as_master(content)


def main():
    import atheris

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={sys.argv[1]}", "-timeout=10", sys.argv[2]], _one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""What must hold for any bytes: shared by the hypothesis tests and the coverage-guided run.

`python -m tests.resilience.fuzzing SECONDS CORPUS` runs atheris, which is no requirement of ours: pip install atheris.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from entrypoint.node.plan import decide
from entrypoint.node.values import Memory, Write

from entrypoint.cni.document import Master, Unusable, Verdict, examine
from entrypoint.disk.looks import File
from tests.node import master, seen, settings_for

CORPUS = Path(__file__).parent / "corpus"
FLAGS = [(), ("--cni-version=1.0.0",), ("--cni-version=0.4.0", "--force-cni-version"), ("--rename-conf-file",)]
SETTINGS = [settings_for(Path("/nowhere"), *flags) for flags in FLAGS]


def as_master(content):
    """A master of this content is wrapped as it is, or refused with a reason; deciding again asks for no more."""
    verdict = examine(content)
    assert isinstance(verdict, Verdict)
    for wanted in SETTINGS:
        plan = decide(wanted, seen(wanted, candidates=(master("10-x.conf", content, since=-100.0),)), Memory(-100.0))
        problems = [each.message for each in plan.problems]
        if isinstance(verdict, Unusable):
            assert plan.configuration is None and verdict.reason and "\n" not in verdict.reason
        if isinstance(verdict, Master):
            assert plan.configuration or problems
        if plan.configuration:
            _wraps(plan.configuration, content, wanted)
    return verdict


def _wraps(step, content, wanted):
    document = json.loads(step.content)
    delegate = document.get("plugins", [document])[0]["delegates"][0]
    given = json.loads(content)
    changed = {"cniVersion"} if wanted.force_cni_version or not given.get("cniVersion") else set()
    for key in {*given, *delegate} - changed:
        assert delegate[key] == given[key]


def as_account(token, authority):
    """A kubeconfig that says exactly what was in the files, or a reason."""
    import yaml

    wanted = SETTINGS[0]
    token_file, ca_file = File(token, 0o644, (0, 1, 0)), File(authority, 0o644, (0, 2, 0))
    plan = decide(wanted, seen(wanted, token=token_file, certificate_authority=ca_file), Memory(0.0))
    if plan.kubeconfig is None:
        assert plan.problems
        return
    assert isinstance(plan.kubeconfig, Write)
    document = yaml.safe_load(plan.kubeconfig.content)
    assert document["users"][0]["user"]["token"] == token.decode("ascii").strip()


def as_static(content):
    """A static configuration is copied as it is, or refused."""
    wanted = settings_for(Path("/nowhere"), "--multus-conf-file=/images/70-multus.conf")
    plan = decide(wanted, seen(wanted, static=File(content, 0o644, (0, 3, 0)), outputs=_none(wanted)), Memory(0.0))
    if plan.configuration is None:
        assert plan.problems
        return
    assert plan.configuration.content == content
    json.loads(content.decode())


def _none(wanted):
    from entrypoint.disk.looks import Absent

    return {path.name: Absent() for path in wanted.output_files}


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

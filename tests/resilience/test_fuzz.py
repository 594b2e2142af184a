"""Any bytes and any flag: a result or a documented refusal, never a traceback, never a hang."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from entrypoint.cli.flags import ENTRYPOINT
from entrypoint.cni.document import Master, Unusable, Verdict, equal, examine, parse
from entrypoint.disk.looks import Absent, File
from entrypoint.node import configuration, kubeconfig, master
from entrypoint.node.ledger import Ledger
from entrypoint.node.part import Before
from entrypoint.node.steps import Write
from entrypoint.settings import InvalidSettingError, Settings
from tests.flags import MASTERS, settings_for
from tests.resilience.conftest import LONG

CORPUS = Path(__file__).parent / "corpus"
"""Found by a run that was guided by coverage: the inputs that together reached most of the code."""
EXAMPLES = 20_000 if LONG else 300
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

SEEDS = [path.read_bytes() for path in sorted([*MASTERS.iterdir(), *CORPUS.iterdir()]) if path.is_file()]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TEXT = st.text() | st.sampled_from(["", "0.3.1", "1.0.0", "0.4.0", "multus", "bridge", "1", "1.0.0.0", "-1.0.0"])
PLUGIN = st.fixed_dictionaries({}, optional={"type": TEXT | JSON, "capabilities": JSON, "name": JSON})
MASTER = st.fixed_dictionaries(
    {"name": TEXT},
    optional={
        "cniVersion": TEXT | JSON,
        "type": TEXT | JSON,
        "plugins": st.lists(PLUGIN, max_size=3) | JSON,
        "x": JSON,
    },
)


@st.composite
def damaged(draw):
    """A real configuration in which some bytes were lost, changed or put in."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


CONTENT = (
    st.binary()
    | damaged()
    | JSON.map(lambda value: json.dumps(value).encode())
    | MASTER.map(lambda value: json.dumps(value).encode())
    | MASTER.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
)


SETS = [(), ("--cni-version=1.0.0",), ("--cni-version=0.4.0", "--force-cni-version"), ("--rename-conf-file",)]
SETTINGS = [settings_for(Path("/nowhere"), *flags) for flags in SETS]
STATIC = settings_for(Path("/nowhere"), "--multus-conf-file=/images/70-multus.conf")


def _wished(wanted, source):
    """Return the configuration's wish on a node that has nothing but this source, and what it writes."""
    part = configuration.Configuration(wanted, Ledger(wanted.ledger_file))
    wish = part.wish(configuration.Seen(0.0, source=source), Before())
    return wish, next((step for step in wish.steps if isinstance(step, Write)), None)


@fuzzed
@given(CONTENT)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"name": "a", "type": "b", "x": ' + b"9" * 5000 + b"}")
@example(b'{"name": "a", "type": "b", "x": "\\ud800"}')
@example(b'{"name": "a", "type": "b", "cniVersion": "9999999999999999999999.0.0"}')
def test_any_master_is_wrapped_or_refused(content):
    verdict = examine(content, "10-x.conf")
    assert isinstance(verdict, Verdict)
    broken_since = -100.0 if isinstance(verdict, Unusable) else None
    candidate = master.Candidate("10-x.conf", verdict, -100.0, broken_since, hashlib.sha256(content).hexdigest())
    for wanted in SETTINGS:
        wish, write = _wished(wanted, master.Seen(0.0, (candidate,)))
        if isinstance(verdict, Unusable):
            assert write is None and verdict.reason and "\n" not in verdict.reason
        if isinstance(verdict, Master):
            assert write or wish.faults or wish.waits
        if write:
            _wraps(write, content, wanted)


def _wraps(step, content, wanted):
    """What is kept of it is as it was, read as Go does; what makes the network is kept."""
    document = json.loads(step.content)
    delegate = document.get("plugins", [document])[0]["delegates"][0]
    given = parse(content)
    changed = {"cniVersion"} if wanted.force_cni_version or not given.get("cniVersion") else set()
    assert {"name", "type", "plugins", "ipam"} & given.keys() <= delegate.keys()
    for key in delegate.keys() - changed:
        assert equal(delegate[key], given[key])


@fuzzed
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary())
@example(b"a\x00b", b"CA")
@example(b"a: b\n- c", b"CA")
@example(b"\x7f", b"CA")
def test_any_service_account_gives_a_kubeconfig_that_says_the_same_or_a_reason(token, authority):
    files = (File(content, 0o644, (0, number, 0)) for number, content in enumerate((token, authority)))
    wish = kubeconfig.Kubeconfig(SETTINGS[0]).wish(kubeconfig.Seen(True, *files, Absent()), Before())
    if not wish.steps:
        assert wish.faults
        return
    (write,) = wish.steps
    document = yaml.safe_load(write.content)
    assert document["users"][0]["user"]["token"] == token.decode("ascii").strip()


@fuzzed
@given(CONTENT)
def test_any_static_configuration_is_copied_or_refused(content):
    wish, write = _wished(STATIC, File(content, 0o644, (0, 3, 0)))
    if write is None:
        assert wish.faults
        return
    assert write.content == content
    json.loads(content.decode("utf-8", "replace"))


FLAGS = sorted(option for flag in ENTRYPOINT for option in flag.opts if option.startswith("--"))


@fuzzed
@given(st.lists(st.tuples(st.sampled_from(FLAGS), TEXT | st.sampled_from(["/a/b", "true", "..", "auto"])), max_size=3))
def test_any_flag_value_is_taken_or_is_a_usage_error(pairs):
    try:
        found = settings_for(Path("/nowhere"), *(f"{flag}={value}" for flag, value in pairs if flag != "--help"))
    except (click.UsageError, InvalidSettingError) as error:
        assert str(error)
    except click.exceptions.Exit:
        assert any(flag == "--version" for flag, _ in pairs)
    else:
        assert isinstance(found, Settings)

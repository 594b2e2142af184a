"""Any bytes and any flag: a result or a documented refusal, never a traceback, never a hang."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from entrypoint.cli.flags import ENTRYPOINT
from entrypoint.settings import InvalidSettingError, Settings
from tests.flags import MASTERS, settings_for
from tests.resilience import fuzzing
from tests.resilience.conftest import LONG

EXAMPLES = 20_000 if LONG else 300
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

SEEDS = [path.read_bytes() for path in sorted([*MASTERS.iterdir(), *fuzzing.CORPUS.iterdir()]) if path.is_file()]
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


@fuzzed
@given(CONTENT)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"name": "a", "type": "b", "x": ' + b"9" * 5000 + b"}")
@example(b'{"name": "a", "type": "b", "x": "\\ud800"}')
@example(b'{"name": "a", "type": "b", "cniVersion": "9999999999999999999999.0.0"}')
def test_any_master_is_wrapped_or_refused(content):
    fuzzing.as_master(content)


@fuzzed
@given(CONTENT)
def test_any_static_configuration_is_copied_or_refused(content):
    fuzzing.as_static(content)


@fuzzed
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary())
@example(b"a\x00b", b"CA")
@example(b"a: b\n- c", b"CA")
@example(b"\x7f", b"CA")
def test_any_service_account_gives_a_kubeconfig_that_says_the_same_or_a_reason(token, authority):
    fuzzing.as_account(token, authority)


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


def test_a_coverage_guided_run_finds_nothing(long, tmp_path, figure):
    """Only in the long form, and only where atheris is installed."""
    import importlib.util
    import re
    import shutil
    import subprocess
    import sys

    if not long:
        pytest.skip("in the long form")
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs atheris (pip install atheris); it is none of the locked requirements")
    corpus = tmp_path / "corpus"
    shutil.copytree(fuzzing.CORPUS, corpus)
    done = subprocess.run(
        [sys.executable, "-m", "tests.resilience.fuzzing", "120", str(corpus)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    figure(f"{runs[1] if runs else '?'} runs in 120 s")


def test_the_corpus_is_small():
    assert sum(path.stat().st_size for path in fuzzing.CORPUS.iterdir()) < 20_000

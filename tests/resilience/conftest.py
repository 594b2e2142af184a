"""Resilience tests: the real program, and everything that a node does to it.

The quick form runs with all other tests. `make resilience` sets RESILIENCE=long: the same tests with the counts and
durations of docs/reliability.md. What each of them tried is printed at the end of the run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.process.scratch import ScratchHost

HERE = Path(__file__).parent
LONG = os.environ.get("RESILIENCE") == "long"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.resilience)


def pytest_terminal_summary(terminalreporter):
    reports = [report for each in terminalreporter.stats.values() for report in each if hasattr(report, "when")]
    told = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for report in reports
        if report.when == "call"
        for name, text in report.user_properties
        if name == "figure"
    ]
    if told:
        terminalreporter.section(f"resilience, {'long' if LONG else 'quick'} form")
        for line in told:
            terminalreporter.write_line(line)


@pytest.fixture
def host(tmp_path):
    return ScratchHost(tmp_path)


@pytest.fixture
def figure(record_property):
    """Say what was tried; it is printed at the end of the run."""
    return lambda text: record_property("figure", text)

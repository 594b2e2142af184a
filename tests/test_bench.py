"""The bench still runs; what it measures is for people to judge, on a quiet machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench" / "bench.py"


@pytest.mark.process
def test_a_quick_bench_measures_every_row_and_prints_the_table(tmp_path):
    written = tmp_path / "figures.json"
    done = subprocess.run([sys.executable, BENCH, "--quick", "--json", written], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(written.read_text())["rows"]
    assert [row["name"] for row in rows if row["name"] not in done.stdout] == []
    assert [row["name"] for row in rows if row["target"]] == [
        "start to configured: CPU",
        "configured: resident memory",
        "idle: context switches in 2 s",
        "token rotated to new kubeconfig",
        "master changed to new configuration",
        "new first candidate to configuration",
        "master removed to configuration removed",
        "SIGTERM to exit",
    ]
    assert all(row["median"] > 0 for row in rows if not row["name"].startswith("idle"))

"""The bench measures the image too."""

import json
import subprocess
import sys

from tests.manifests import ROOT


def test_a_quick_bench_measures_every_row_in_the_container(image, tmp_path):
    written = tmp_path / "figures.json"
    command = [sys.executable, ROOT / "bench/bench.py", "--quick", "--only=container", f"--image={image}"]
    done = subprocess.run([*command, "--json", written], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(written.read_text())["rows"]
    assert [name for name, row in rows.items() if "container" not in row] == []
    assert [name for name in rows if name not in done.stdout] == []

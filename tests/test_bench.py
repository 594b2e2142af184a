"""The bench still runs; what it measures is for people to judge, on a quiet machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import cgroups  # noqa: E402
import container  # noqa: E402
import places  # noqa: E402
import table  # noqa: E402

AIMS = {
    table.WALL: "< 300 ms",
    table.RESTART_WALL: "< 250 ms",
    table.SLOW: "< 2500 ms",
    table.RESTART_SLOW: "< 2500 ms",
    table.RESIDENT: "< 28 MiB",
    table.HITS: "never",
    table.TOKEN: "< 5, 25 ms",
    table.CHANGED: "< 5, 25 ms",
    table.REMOVED: "< 5, 25 ms",
    table.FIRST: "< 5, 25 ms",
    table.EXIT: "< 50 ms",
}


def run(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.process
def test_a_quick_bench_measures_every_row_on_the_host_and_prints_the_table(tmp_path):
    written = tmp_path / "figures.json"
    told = run(BENCH / "bench.py", "--quick", "--only=host", "--json", written)
    document = json.loads(written.read_text())
    rows = document["rows"]
    assert [row["name"] for row in rows if row["name"] not in told] == []
    assert {row["name"]: row["aim"] for row in rows if row["aim"]} == {
        **AIMS,
        "idle for 2 s: context switches": "not judged",
        "idle for 2 s: CPU": "not judged",
    }
    assert [reason for reason in document["left out"] if reason not in told] == []
    limited = "under 0.1 CPU and in 50 MiB" not in told
    for row in rows:
        if "host" not in row:
            assert not limited and ("upstream's limits" in row["name"] or "50 MiB" in row["name"])
        elif not row["name"].startswith("idle") and not row["name"].endswith((": page cache", ": limit hit")):
            assert row["host"]["median"] > 0, row


@pytest.mark.process
def test_a_quick_bench_of_the_directory_prints_a_line_for_each_kind_of_file():
    told = run(BENCH / "directory.py", "--quick")
    assert "10 no candidates (.bak)" in told
    assert "10 later masters (.conflist)" in told


def judged(row, **samples):
    return table.figures(row, {name.replace("_", " "): values for name, values in samples.items()})


def test_a_row_is_divided_by_the_bare_interpreter_of_the_same_place():
    row = table.Row("ours", "ms", "the bare", table.Aim("<= 6 x", ratio_at_most=6))
    assert judged(row, ours=[10.0, 12.0, 20.0], the_bare=[2.0]).ratio == 6.0
    assert judged(row, ours=[10.0, 12.0, 20.0], the_bare=[2.0]).met is True
    assert judged(row, ours=[10.0, 12.1, 20.0], the_bare=[2.0]).met is False


def test_a_reaction_is_as_aimed_only_when_both_median_and_99th_percentile_are():
    row = table.Row("ours", "ms", None, table.REACTION)
    assert judged(row, ours=[4.0] * 60).met is True
    assert judged(row, ours=[6.0] * 60).met is False
    assert judged(row, ours=[4.0] * 58 + [30.0] * 2).met is False


def test_one_hit_of_the_limit_is_a_miss_however_many_starts_had_none():
    row = next(row for row in table.rows(60) if row.name == table.HITS)
    assert judged(row, **{row.name: [0.0] * 9}).met is True
    assert judged(row, **{row.name: [0.0] * 9 + [1.0]}).met is False


def test_idleness_is_judged_when_it_was_watched_for_a_minute():
    def aim(seconds):
        return next(row.aim for row in table.rows(seconds) if row.name == table.IDLE_CPU.format(seconds))

    assert aim(60).most == 1
    assert aim(2).most is None


def test_what_was_not_measured_in_one_place_is_a_gap_there_and_not_a_miss():
    rows = [table.Row("ours", "ms", None, table.REACTION)]
    told = list(table.lines(rows, {"host": {"ours": [1.0, 2.0]}, "container": {}}))
    assert "MISSED" not in told[-1]
    assert told[-1].split()[-1] == "met"


MEBIBYTE = 1 << 20
VERSION_1 = {
    "cpuacct.usage": "2500000\n",
    "memory.usage_in_bytes": f"{30 * MEBIBYTE}\n",
    "memory.max_usage_in_bytes": f"{40 * MEBIBYTE}\n",
    "memory.failcnt": "7\n",
    "memory.stat": f"cache 1\nrss 1\ntotal_cache {18 * MEBIBYTE}\ntotal_rss {12 * MEBIBYTE}\n",
}
VERSION_2 = {
    "cpu.stat": "usage_usec 2500\nuser_usec 2000\n",
    "memory.current": f"{30 * MEBIBYTE}\n",
    "memory.peak": f"{40 * MEBIBYTE}\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 0\n",
    "memory.stat": f"anon {12 * MEBIBYTE}\nfile {18 * MEBIBYTE}\nkernel 5\n",
}


@pytest.mark.parametrize(("files", "unified"), [(VERSION_1, False), (VERSION_2, True)], ids=["version 1", "version 2"])
def test_the_counters_of_a_control_group_are_read_in_both_versions(files, unified, monkeypatch, tmp_path):
    monkeypatch.setattr(cgroups, "UNIFIED", unified)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    group = cgroups.Group(cpu=tmp_path, memory=tmp_path)
    group.look()
    assert group.cpu() == 2.5  # milliseconds
    assert group.charged() == (40, 12, 18, 7)
    group.reset()
    assert group.charged().hits == 0


def test_a_sample_whose_control_group_podman_took_away_first_is_taken_again(monkeypatch, tmp_path):
    monkeypatch.setattr(cgroups, "UNIFIED", False)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/cpuacct.usage").write_text("2500000")
    looks = [tmp_path / "gone", tmp_path / "there"]

    def sample():
        contained = object.__new__(container.Contained)
        contained.group, contained._runtime_cpu = cgroups.Group(cpu=looks.pop(0), memory=tmp_path), 0.5
        return contained.cpu_after_end()

    assert places.unless_spoilt(sample) == 2.0


# ---- what the pages say of it ----


def printed(name, column):
    """Return a figure of the table that bench/README.md shows, of its container half."""
    page = (BENCH / "README.md").read_text("utf-8").splitlines()
    (head,) = [line for line in page if line.count("median") == 2]
    (row,) = [line for line in page if line.startswith(f"{name} ")]
    end = head.rindex(column) + len(column)
    return float(row[end - 8 : end])


@pytest.mark.parametrize(
    ("page", "pattern", "row", "column", "unit"),
    [
        ("README.md", r"CPU time of a start.*\[([\d.]+)\]", table.CPU, "x bare", 1),
        ("README.md", r"Resident memory.*\[([\d.]+)\]", table.RESIDENT, "x bare", 1),
        ("bench/README.md", r"CPU to configured \|.*\| ([\d.]+) x \|", table.CPU, "x bare", 1),
        ("bench/README.md", r"CPU of a restart \|.*\| ([\d.]+) x:", table.RESTART_CPU, "x bare", 1),
        ("bench/README.md", r"configured under 0.1 CPU \|.*\| ([\d.]+) s,", table.SLOW, "median", 1000),
        ("bench/README.md", r"configured under 0.1 CPU \|.*restart ([\d.]+) s", table.RESTART_SLOW, "median", 1000),
        ("bench/README.md", r"resident memory \|.*\| ([\d.]+) x \|", table.RESIDENT, "x bare", 1),
        ("bench/README.md", r"SIGTERM to the end \|.*\| ([\d.]+) ms", table.EXIT, "median", 1),
        ("docs/image.md", r"under 0.1 CPU, s \| ([\d.]+)", table.SLOW, "median", 1000),
        ("docs/image.md", r"the node being configured already, s \| ([\d.]+)", table.RESTART_SLOW, "median", 1000),
        ("docs/image.md", r"CPU time for it.* \| ([\d.]+),", table.CPU, "median", 1000),
        ("docs/image.md", r"CPU time for it.*, ([\d.]+) \|", table.RESTART_CPU, "median", 1000),
        ("docs/image.md", r"peak charged .*\| ([\d.]+),", table.PEAK, "median", 1),
        ("docs/image.md", r"peak charged .* ([\d.]+) are its own", table.PEAK_OWN, "median", 1),
        ("docs/image.md", r"peak charged .* ([\d.]+) page cache", table.PEAK_CACHE, "median", 1),
        ("docs/image.md", r"resident memory, asleep, MiB \| ([\d.]+)", table.RESIDENT, "median", 1),
        ("docs/image.md", r"bare interpreter ([\d.]+)", table.BARE_RESIDENT, "median", 1),
        ("docs/image.md", r"SIGTERM to end, ms \| ([\d.]+)", table.EXIT, "median", 1),
    ],
)
def test_figures_on_the_pages_are_those_of_the_table_that_the_bench_printed(page, pattern, row, column, unit):
    (said,) = re.findall(pattern, (BENCH.parent / page).read_text("utf-8"))
    digits = len(said.partition(".")[2])
    assert float(said) == round(printed(row, column) / unit, digits)

"""Memory limits as cgroup v1 and v2 show them, with and without a cgroup namespace."""

import subprocess
import sys

import pytest

from entrypoint.cluster import client as cluster
from entrypoint.cluster import memory

MIB = 1 << 20
UNLIMITED_V1 = str((1 << 63) - 4096)


def write_group(directory, **files):
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(f"{content}\n")


def v2(directory, limit, used, statistics="inactive_file 0\nactive_file 0\nfile_mapped 0"):
    write_group(directory, memory__max=limit, memory__current=used, memory__stat=statistics)


def v1(directory, limit, used, statistics="total_inactive_file 0"):
    write_group(directory, memory__limit_in_bytes=limit, memory__usage_in_bytes=used, memory__stat=statistics)


@pytest.fixture
def own(tmp_path):
    def write(text):
        path = tmp_path / "own"
        path.write_text(text)
        return path

    return write


def test_version_2_in_a_cgroup_namespace(tmp_path, own):
    top = tmp_path / "cgroup"
    v2(top, 50 * MIB, 30 * MIB)
    (top / "cgroup.controllers").touch()
    assert memory.room(top, own("0::/\n")) == memory.Room(50 * MIB, 20 * MIB)


def test_version_2_without_a_limit(tmp_path, own):
    top = tmp_path / "cgroup"
    v2(top, "max", 30 * MIB)
    (top / "cgroup.controllers").touch()
    assert memory.room(top, own("0::/\n")) is None


def test_version_2_with_the_hosts_view_takes_the_tightest_group_on_the_way(tmp_path, own):
    top = tmp_path / "cgroup"
    top.mkdir()
    (top / "cgroup.controllers").touch()
    v2(top / "kubepods/pod1/container", "max", 10 * MIB)
    v2(top / "kubepods/pod1", 64 * MIB, 60 * MIB)
    v2(top / "kubepods", 4096 * MIB, 1024 * MIB)
    assert memory.room(top, own("0::/kubepods/pod1/container\n")) == memory.Room(64 * MIB, 4 * MIB)


def test_version_1_mounted_at_the_containers_own_group(tmp_path, own):
    v1(tmp_path / "cgroup/memory", 50 * MIB, 10 * MIB)
    found = memory.room(tmp_path / "cgroup", own("12:memory:/kubepods/pod1/abc\n0::/\n"))
    assert found == memory.Room(50 * MIB, 40 * MIB)


def test_version_1_with_the_hosts_view(tmp_path, own):
    v1(tmp_path / "cgroup/memory", UNLIMITED_V1, 900 * MIB)
    v1(tmp_path / "cgroup/memory/pod1", 80 * MIB, 70 * MIB)
    found = memory.room(tmp_path / "cgroup", own("4:cpu,memory:/pod1\n"))
    assert found == memory.Room(80 * MIB, 10 * MIB)


def test_version_1_without_a_limit(tmp_path, own):
    v1(tmp_path / "cgroup/memory", UNLIMITED_V1, 900 * MIB)
    assert memory.room(tmp_path / "cgroup", own("4:memory:/\n")) is None


def test_no_cgroups_at_all_is_no_limit(tmp_path):
    assert memory.room(tmp_path / "cgroup", tmp_path / "nothing") is None


@pytest.mark.parametrize(("make", "prefix", "mapped"), [(v1, "total_", "mapped_file"), (v2, "", "file_mapped")])
def test_page_cache_that_the_kernel_takes_back_is_not_in_use(tmp_path, own, make, prefix, mapped):
    top = tmp_path / "cgroup"
    statistics = f"{prefix}inactive_file {8 * MIB}\n{prefix}active_file {20 * MIB}\n{prefix}{mapped} {6 * MIB}"
    if make is v2:
        v2(top, 50 * MIB, 50 * MIB, statistics)
        (top / "cgroup.controllers").touch()
    else:
        v1(top / "memory", 50 * MIB, 50 * MIB, statistics)
    assert memory.room(top, own("0::/\n")).available == 22 * MIB


def test_a_path_that_leads_out_of_the_mount_is_not_followed(tmp_path, own):
    top = tmp_path / "cgroup"
    v2(top, 50 * MIB, 30 * MIB)
    (top / "cgroup.controllers").touch()
    assert memory.room(top, own("0::/../../other\n")) == memory.Room(50 * MIB, 20 * MIB)


def test_a_shortfall_names_the_limit_that_would_do():
    room = memory.Room(limit=50 * MIB, available=30 * MIB)
    said = memory.shortfall(50 * MIB, room)
    assert "limit of 50 MiB leaves 30 MiB" in said
    assert "needs 50 MiB" in said
    assert "at least 70 MiB" in said
    assert memory.shortfall(50 * MIB, memory.Room(70 * MIB, 50 * MIB)) is None


def test_no_limit_is_no_shortfall():
    assert memory.shortfall(60 * MIB, None) is None


def test_a_client_that_is_loaded_already_needs_no_room(monkeypatch):
    monkeypatch.setattr(memory, "room", lambda: memory.Room(limit=50 * MIB, available=-1))
    monkeypatch.delitem(sys.modules, "kubernetes.client.api_client", raising=False)
    assert cluster.shortfall()
    monkeypatch.setitem(sys.modules, "kubernetes.client.api_client", memory)
    assert cluster.shortfall() is None


def test_the_client_takes_no_more_than_we_reckon_with():
    code = (
        "from entrypoint.cluster import client as cluster\n"
        "def own(): return int(open('/proc/self/status').read().split('RssAnon:')[1].split()[0])\n"
        "before = own()\n"
        "api = cluster.Api(cluster.Access('https://127.0.0.1:1', 't', None))\n"
        "try: api.request('GET', '/version', timeout=1)\n"
        "except cluster.UnreachableError: pass\n"
        "print(own() - before)"
    )
    growth = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) * 1024
    assert growth < cluster.CLIENT_SIZE
    assert 1.5 * growth > cluster.CLIENT_SIZE  # else containers that could hold it would be refused


@pytest.mark.process
@pytest.mark.parametrize(("limit", "fits"), [(20 * MIB, False), (100 * MIB, True)])
def test_a_process_sees_the_limit_of_its_real_control_group(limited_group, limit, fits):
    group, limit_file = limited_group
    limit_file.write_text(str(limit))
    code = (
        "import os, sys\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from entrypoint.cluster import client as cluster, memory\n"
        "print(memory.room().limit, cluster.shortfall())"
    )
    process = subprocess.run([sys.executable, "-c", code, str(group)], capture_output=True, text=True)
    seen, said = process.stdout.strip().split(" ", 1)
    assert int(seen) == limit, process.stderr
    assert (said == "None") is fits

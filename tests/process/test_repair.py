"""What somebody removes or changes is put back, though never in a spin."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.process.scratch import ScratchHost, overwrite, replace, settled
from tests.waiting import until

OUTPUTS = ["conf", "kubeconfig", "installed"]


def _removed(path):
    path.unlink()


def _overwritten(path):
    overwrite(path, "garbage")


def _replaced(path):
    replace(path, "garbage")


def _emptied(path):
    overwrite(path, "")


def _opened_up(path):
    path.chmod(0o777 if path.stat().st_mode & 0o777 != 0o777 else 0o600)


def _linked(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("nowhere")


def _touched_with_other_bytes_of_the_same_length(path):
    content = path.read_bytes()
    status = path.stat()
    overwrite(path, content[:-2] + b"!!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGES = [
    _removed,
    _overwritten,
    _replaced,
    _emptied,
    _opened_up,
    _linked,
    _touched_with_other_bytes_of_the_same_length,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_outputs_are_put_back(host, damage):
    paths = [getattr(host, output) for output in OUTPUTS]

    def state():
        return [not path.is_symlink() and path.exists() and (path.read_bytes(), path.stat().st_mode) for path in paths]

    with host.configured() as program:
        good = state()
        for path in paths:
            damage(path)

        def whole():
            with contextlib.suppress(FileNotFoundError):
                return state() == good
            return False

        until(whole)
        until(host.ready.exists)
        assert program.running()


def test_a_damage_is_followed_by_its_event(host):
    with host.configured() as program:
        for output in OUTPUTS:
            settled(program)
            path = getattr(host, output)
            path.unlink()
            until(path.exists)


def test_a_fight_is_five_writes_in_five_seconds_and_is_told_once(tmp_path):
    """One fight over each output, all of them at once."""

    def fight(output):
        host = ScratchHost(tmp_path / output)
        path = getattr(host, output)
        with host.configured() as program:
            made = []
            for _ in range(7):
                made.append(until(lambda: path.exists() and path.stat()).st_ctime_ns)  # when it got its name
                path.unlink()
            assert all(sixth - first > 4.9e9 for first, sixth in zip(made, made[5:], strict=False)), made
            warning = program.says("warning", str(path), "5 times")
            until(path.exists)
            settled(program)
            assert program.lines("warning") == [warning]
            assert not program.lines("error")
            assert len(program.log.splitlines()) < 40

    with ThreadPoolExecutor(len(OUTPUTS)) as pool:
        list(pool.map(fight, OUTPUTS))


def test_with_the_copy_skipped_the_binary_is_left_alone(host):
    overwrite(host.installed, "somebody else's")
    host.installed.chmod(0o755)
    with host.configured("--skip-multus-binary-copy") as program:
        assert host.installed.read_text() == "somebody else's"
        overwrite(host.installed, "mine")
        settled(program)
        assert host.installed.read_text() == "mine"


def test_with_the_copy_skipped_a_link_that_leads_out_of_the_directory_is_no_binary(host):
    """On the host it leads to another file than in this container, perhaps to none."""
    host.master()
    host.installed.symlink_to(host.multus)
    with host.start("--skip-multus-binary-copy") as program:
        program.says("waiting for an executable file", f"is a link to {host.multus}")
        settled(program, waiting=True)
        assert not host.ready.exists()
        assert not host.conf.exists()
        (host.bin_dir / "multus-4.3").write_bytes(b"x")
        (host.bin_dir / "multus-4.3").chmod(0o755)
        (host.bin_dir / "link").symlink_to("multus-4.3")
        (host.bin_dir / "link").rename(host.installed)
        host.until_ready(program)


def test_the_sibling_that_somebody_writes_is_removed_again(host):
    with host.configured():
        overwrite(host.conflist, "{}")
        until(lambda: not host.conflist.exists())
        until(host.ready.exists)

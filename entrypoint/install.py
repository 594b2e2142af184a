"""`install`: copy the programs of the image to the host and end, as the init container of Multus 4.3 does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from entrypoint.disk import files, programs
from entrypoint.disk.looks import source_fault

PROGRAMS = ("multus", "passthru")
"""What is copied, under these names. The second comes with some images only, beside the first."""


class InstallError(Exception):
    """A program could not be installed; the message names it, the reason and what to do."""


def sources(binary: Path) -> list[tuple[str, Path]]:
    """Return the programs to install and where they are; `binary` is the image's multus binary."""
    beside = binary.with_name(PROGRAMS[1])
    return [(PROGRAMS[0], binary), *([(PROGRAMS[1], beside)] if os.path.isfile(beside) else [])]


def install(binary: Path, directory: Path, *, dry_run: bool = False) -> Iterator[str]:
    """Copy each program into the directory unless it is there already; yield what was done. Raises `InstallError`.

    A program that runs at this moment is replaced all the same (upstream issue 1221). With `dry_run` nothing is
    written, and what would be done is yielded; what can be known before to fail does so.
    """
    if not os.path.isdir(directory):
        raise InstallError(f"--dest-dir={directory} is not there: is the hostPath volume mounted at that path?")
    if not dry_run:
        files.sweep([directory])
    for name, source in sources(binary):
        target = directory / name
        if fault := source_fault(source):
            raise InstallError(f"--multus-bin-file={source} {fault}: does the image carry the multus binary?")
        try:
            if _up_to_date(source, target):
                yield f"{target} is up to date"
                continue
            if not dry_run:
                programs.copy(source, target, lambda: False)
        except OSError as error:
            raise InstallError(
                f"cannot install {target} from {source}: {error.strerror}; is there room on that volume, and may this "
                "container write there (readOnly, user, SELinux type)?"
            ) from error
        yield f"{'would install' if dry_run else 'installed'} {target} from {source}"


def _up_to_date(source: Path, target: Path) -> bool:
    wanted = os.stat(source)
    try:
        found = os.lstat(target)
        alike = (found.st_mode, found.st_size) == (wanted.st_mode, wanted.st_size)
        return alike and programs.compared(target, source, lambda: False)[0]
    except FileNotFoundError:
        return False

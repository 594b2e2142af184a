"""The places on the node that matter to these settings: what is followed, what must be there, what is swept. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from entrypoint import owner
from entrypoint.cni import runtime
from entrypoint.cni.document import RETIRED_SUFFIX, SUFFIXES
from entrypoint.settings import Settings


def followed_files(settings: Settings) -> Iterable[Path]:
    """Return the files whose change is a reason to look again."""
    yield from (settings.token_file, settings.ca_file, settings.kubeconfig_file, *settings.output_files)
    yield settings.binary_file
    if settings.rename_master:
        yield settings.record_file
    for path in (settings.conf_patch_file, settings.readiness_gate):
        if path is not None:
            yield path
    if not settings.skip_binary_copy:
        yield settings.multus_bin_file
    if settings.static_conf_file is not None:
        yield settings.static_conf_file
    for name in settings.master_names:
        yield settings.autoconfig_dir / name
        yield settings.autoconfig_dir / (name + RETIRED_SUFFIX)
    if settings.ready_file is not None:
        yield settings.ready_file


def followed_listings(settings: Settings, *, frozen: bool) -> list[tuple[Path, tuple[str, ...]]]:
    """Return the directories in which files with these suffixes may come and go; `frozen`: the master does not."""
    instances = (settings.kubeconfig_file.parent, (owner.SUFFIX,))
    read_first = (settings.cni_conf_dir, runtime.SUFFIXES)  # whatever comes there may be read before ours
    if settings.static_conf_file is not None or frozen:
        return [instances, read_first]
    old = tuple(suffix + RETIRED_SUFFIX for suffix in SUFFIXES) if settings.rename_master else ()
    return [instances, read_first, (settings.autoconfig_dir, (*SUFFIXES, *old))]


def swept(settings: Settings) -> Iterable[Path]:
    """Return the directories in which a killed run may have left temporary files."""
    yield from (settings.cni_conf_dir, settings.kubeconfig_file.parent, settings.cni_bin_dir)
    if settings.ready_file:
        yield settings.ready_file.parent


def required(settings: Settings) -> Iterable[tuple[str, Path]]:
    """Return the directories that must be there, each with the flag that names it."""
    yield "--cni-conf-dir", settings.cni_conf_dir
    if not settings.skip_binary_copy:
        yield "--cni-bin-dir", settings.cni_bin_dir
    if settings.ready_file:
        yield "--ready-file", settings.ready_file.parent

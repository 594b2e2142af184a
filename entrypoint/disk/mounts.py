"""Where on the host a directory of this container is, as far as the kernel tells. Pure, but for `of`, which asks it.

/proc/self/mountinfo has, of a mounted hostPath, the path within its file system. That is the path on the host only
where the file system is the host's root. An own partition for /var leaves the beginning out, a btrfs subvolume or an
OSTree deployment puts something before it, and a link or a bind mount on the host shows its target. So only the end of
the path tells, and only where it is the end of a directory that is known to be another than /etc/cni/net.d.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

KUBECONFIG = "/multus.d/multus.kubeconfig"
"""The kubeconfig that this program writes, within the configuration directory."""

_ELSEWHERE = {
    "/agent/etc/cni/net.d": "/var/lib/rancher/k3s/agent/etc/cni/net.d",  # k3s, whatever its --data-dir, and kin of it
    "/args/cni-network": "/var/snap/microk8s/current/args/cni-network",  # MicroK8s, in a snap of any revision
    "/kubernetes/cni/net.d": "/etc/kubernetes/cni/net.d",  # OpenShift
    "/cni/net.mk": "/etc/cni/net.mk",  # minikube
}
"""How the configuration directories of platforms end that have it elsewhere, and where it usually is."""


def source(mountinfo: str, path: str) -> str | None:
    """Return the path of a directory of this container within the file system that it is on; None when unknown.

    `mountinfo` is what /proc/PID/mountinfo holds; proc(5) has its fields.
    """
    found: tuple[str, str] | None = None
    for line in mountinfo.splitlines():
        root, point, *_ = [*map(_unescaped, line.split(" ")[3:5]), "", ""]
        holds = root.startswith("/") and (path == point or path.startswith(point.rstrip("/") + "/"))
        if holds and (found is None or len(point) >= len(found[1])):  # the last of those on each other is seen
            found = root, point
    if found is None:
        return None
    return "/" + (found[0] + path.removeprefix(found[1].rstrip("/"))).strip("/")


def of(directory: Path) -> str | None:
    """Ask the kernel where a directory of this container is from; its mounts stay what they are at its start."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    return source(mountinfo, os.path.realpath(directory))


def revision(source: str | None) -> str | None:
    """Return the revision whose directory is mounted, as of a snap (MicroK8s) or of k3s's data; None when none is.

    Such a mount stays what it is when an upgrade makes another one current: who looks there sees a dead directory.
    """
    matched = re.search(r"/snap/[^/]+/([0-9]+)/|/data/([0-9a-f]{64})/", source or "")
    return next(filter(None, matched.groups())) if matched else None


def is_usual(source: str | None) -> bool:
    """Say whether a configuration directory from there is, as far as the kernel tells, the host's /etc/cni/net.d."""
    return source is not None and source.endswith("/etc/cni/net.d") and not source.endswith(tuple(_ELSEWHERE))


def astray(source: str | None, kubeconfig: str) -> str | None:
    """Return where the host has the kubeconfig that we write, when the path that Multus is told leads elsewhere.

    `source` is where the configuration directory is from, `kubeconfig` the path on the host that stands in the
    configuration. None when the path is right, when nothing tells, or when it is not meant to be ours.
    """
    if source is None or not kubeconfig.endswith(KUBECONFIG):
        return None
    for end, usual in _ELSEWHERE.items():
        if source.endswith(end):
            if kubeconfig.removesuffix(KUBECONFIG).endswith(end):
                return None
            return usual.replace("/k3s/", "/rke2/" if "/rke2/" in source else "/k3s/") + KUBECONFIG
    return None


def _unescaped(field: str) -> str:
    """Read the octal escapes that stand for blanks and the like."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)

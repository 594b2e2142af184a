"""What the configuration refers to: deciding on the kubeconfig and the multus binary. Pure."""

from __future__ import annotations

from entrypoint.cni import wrap
from entrypoint.disk.looks import Absent, File, holds, unknown
from entrypoint.node.values import Copy, Memory, Problem, Seen, Write
from entrypoint.settings import Settings, is_token


def kubeconfig(settings: Settings, seen: Seen, memory: Memory) -> tuple[Write | None, list[Problem], list[str]]:
    """Return how to write the kubeconfig, None when it is as it must be or cannot be made; problems; warnings."""
    if isinstance(seen.token, Absent) and seen.token.missing:
        message = f"no service account token at {settings.token_file}"
        if isinstance(seen.kubeconfig, File):
            return None, [], [f"{message}: {settings.kubeconfig_file} stays as it is"]
        if settings.kubeconfig_path_given:
            # Whether it is there can be said of the path that this program writes, and of no other.
            if settings.kubeconfig_is_ours:
                return None, [Problem(f"{message}, and no {settings.kubeconfig_file} as it says", fatal=False)], []
            return None, [], [f"{message}: Multus will use {settings.kubeconfig_path_on_host} as it finds it"]
        advice = "set automountServiceAccountToken and a serviceAccountName, or --multus-kubeconfig-file-host"
        return None, [Problem(f"{message}: {advice}", memory.first)], []
    faults = _fault(settings.token_file, "service account token", seen.token)
    if not settings.skip_tls_verify:
        faults += _fault(settings.ca_file, "CA certificate", seen.certificate_authority)
    if isinstance(seen.token, File) and not is_token(seen.token.content):
        faults.append(f"the service account token at {settings.token_file} is no token: it is not one printable word")
    if settings.api_server is None:
        faults.append("KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set: does this run in a pod?")
    if faults or settings.api_server is None or not isinstance(seen.token, File):
        return None, [Problem(fault, memory.first) for fault in faults], []
    authority = seen.certificate_authority
    content = wrap.kubeconfig(
        settings.api_server,
        seen.token.content.decode("ascii").strip(),
        authority.content if isinstance(authority, File) and not settings.skip_tls_verify else None,
    )
    if unknown(seen.kubeconfig) or holds(seen.kubeconfig, content, settings.kubeconfig_mode):
        return None, [], []
    return Write(settings.kubeconfig_file, content, settings.kubeconfig_mode), [], []


def _fault(path: object, what: str, look: File | Absent) -> list[str]:
    if isinstance(look, Absent):
        return [f"the {what} at {path} {look.why}"]
    if not look.content.strip():
        return [f"the {what} at {path} is empty"]
    return []


def binary(settings: Settings, seen: Seen, memory: Memory) -> tuple[Copy | None, list[Problem]]:
    """Return how to install the binary, None when it is there or cannot be; and the problems with that."""
    if settings.skip_binary_copy:
        return None, []
    if seen.binary.source is not None:
        message = f"--multus-bin-file={settings.multus_bin_file} {seen.binary.source.why}"
        return None, [Problem(f"{message}: does the image carry the multus binary?", memory.first)]
    if seen.binary.installed:
        return None, []
    return Copy(settings.binary_file, settings.multus_bin_file), []

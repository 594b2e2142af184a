"""The node's part of `check`: judging what was seen on it. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from entrypoint import cniconf, kubeconfig
from entrypoint.findings import Finding, failed, passed, skipped, warned
from entrypoint.node import Absent, File

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from entrypoint.cluster import Access
    from entrypoint.node import Plan, Seen
    from entrypoint.settings import Settings

_RUNNING = "is the entrypoint running with these flags? See its log"


@dataclass(frozen=True, slots=True)
class View:
    """What is known of the node."""

    now: float
    """Seconds since 1970."""
    seen: Seen
    plan: Plan
    """What a first pass over the node would do."""
    binary: str | None
    """What is wrong with the installed multus binary as a program; None: nothing."""
    plugins: dict[str, str | None]
    """The same for each plugin type that the configuration names."""
    kubeconfig_file: Path | None
    """Where the kubeconfig that Multus uses is; None when this container cannot see it."""
    kubeconfig: File | Absent


def findings(settings: Settings, view: View) -> list[Finding]:
    """Judge everything on the node."""
    return [
        *_directories(view),
        *_binary(settings, view),
        *_configuration(settings, view),
        _plugins(settings, view),
        *_kubeconfig(settings, view),
    ]


def access(view: View) -> Access | None:
    """Return the way into the cluster that the node's kubeconfig describes; None when there is none."""
    if isinstance(view.kubeconfig, Absent):
        return None
    try:
        found = kubeconfig.parse(view.kubeconfig.content)
    except kubeconfig.InvalidKubeconfigError:
        return None
    return found if found.token else None


# ---- directories and binary ----


def _directories(view: View) -> Iterator[Finding]:
    missing = ", ".join(f"{flag}={path}" for flag, path in view.seen.missing_dirs)
    if missing:
        yield failed("node.directories", f"not there: {missing}", "is the hostPath volume mounted at that path?")
    else:
        yield passed("node.directories", "all are there")


def _binary(settings: Settings, view: View) -> Iterator[Finding]:
    path = settings.binary_file
    if view.binary:
        advice = "who installs it? --skip-multus-binary-copy is set" if settings.skip_binary_copy else _RUNNING
        yield failed("binary.executable", f"{path} {view.binary}", advice)
    else:
        yield passed("binary.executable", f"{path} is there")
    source = view.seen.binary.source
    if settings.skip_binary_copy:
        yield skipped("binary.current", "--skip-multus-binary-copy is set")
    elif source is not None:
        advice = "does the image carry the multus binary?"
        yield failed("binary.current", f"--multus-bin-file={settings.multus_bin_file} {source.why}", advice)
    elif view.seen.binary.installed:
        yield passed("binary.current", f"the same as {settings.multus_bin_file}")
    else:
        yield failed("binary.current", f"{path} is not the same as {settings.multus_bin_file}", _RUNNING)


# ---- configuration ----


def standing(view: View) -> tuple[str, File] | None:
    """Return the configuration that the runtime would read of those that are ours, with its file name."""
    for name, look in view.seen.outputs.items():
        if isinstance(look, File):
            return name, look
    return None


def plugin_types(document: Any) -> list[str]:
    """Return every plugin type that a CNI configuration names, each once: delegates and IPAM too."""
    types: dict[str, None] = {}
    pending = [document]
    while pending:
        plugin = pending.pop(0)
        if isinstance(plugin, list):
            pending += plugin
        elif isinstance(plugin, dict):
            if isinstance(plugin.get("type"), str):
                types[plugin["type"]] = None
            pending += [plugin.get(key) for key in ("plugins", "delegates", "ipam", "delegate")]
    return list(types)


def _configuration(settings: Settings, view: View) -> Iterator[Finding]:
    found = standing(view)
    if found is None:
        names = " or ".join(view.seen.outputs)
        yield failed("configuration.present", f"no {names} in {settings.cni_conf_dir}", _RUNNING)
        yield from (skipped(f"configuration.{part}", "there is no configuration") for part in ("valid", "first"))
    else:
        name, look = found
        yield passed("configuration.present", f"{settings.cni_conf_dir / name} is there")
        yield _valid(name, look)
        if view.seen.rivals:
            rivals = ", ".join(view.seen.rivals)
            advice = "remove or rename them: the CNI runtime reads the first file"
            yield failed("configuration.first", f"sorted before {name}: {rivals}", advice)
        else:
            yield passed("configuration.first", f"{name} is the first that the CNI runtime reads")
    yield _current(settings, view)


def _valid(name: str, look: File) -> Finding:
    verdict = cniconf.examine(look.content)
    if isinstance(verdict, cniconf.Multus):
        return passed("configuration.valid", f"{name} is a Multus configuration")
    fault = verdict.reason if isinstance(verdict, cniconf.Unusable) else "it does not run Multus"
    return failed("configuration.valid", f"{name}: {fault}", "who wrote it? " + _RUNNING)


def _current(settings: Settings, view: View) -> Finding:
    identifier, plan = "configuration.current", view.plan
    output = plan.memory.output
    if output is None:
        fault = plan.waiting or "; ".join(problem.message for problem in plan.problems)
        return failed(identifier, fault, "is the default network's CNI plugin running on this node?")
    wanted = f"wraps {output.master}" if output.master else f"is the copy of {settings.static_conf_file}"
    if plan.configuration is not None:
        report = warned if settings.skip_config_watch else failed
        fault = f"{output.file_name} is not what the flags call for, which {wanted}"
        return report(
            identifier, fault, _RUNNING + ("; --skip-config-watch is set" if settings.skip_config_watch else "")
        )
    if plan.removals:
        names = ", ".join(removal.path.name for removal in plan.removals)
        return failed(identifier, f"{names} stands beside {output.file_name}", _RUNNING)
    return passed(identifier, f"{output.file_name} {wanted}, as the flags call for")


def _plugins(settings: Settings, view: View) -> Finding:
    missing = [f"{name} ({fault})" for name, fault in view.plugins.items() if fault]
    if missing:
        where = f"{settings.cni_bin_dir}"
        if settings.additional_bin_dir:
            where += f" or {settings.additional_bin_dir}"
        advice = "is the default network's CNI plugin installed on this node?"
        return failed("plugins.present", f"in {where}: {', '.join(missing)}", advice)
    if not view.plugins:
        return skipped("plugins.present", "there is no configuration that names plugins")
    return passed("plugins.present", f"all are there: {', '.join(view.plugins)}")


# ---- kubeconfig ----


def _kubeconfig(settings: Settings, view: View) -> Iterator[Finding]:
    path, look = view.kubeconfig_file, view.kubeconfig
    parts = ("kubeconfig.valid", "kubeconfig.mode", "kubeconfig.current", "kubeconfig.token")
    if path is None:
        why = f"--multus-kubeconfig-file-host={settings.kubeconfig_path_on_host} cannot be seen from this container"
        yield from (skipped(identifier, why) for identifier in ("kubeconfig.present", *parts))
        return
    if isinstance(look, Absent):
        yield failed("kubeconfig.present", f"{path} {look.why}", _RUNNING)
        yield from (skipped(identifier, "there is no kubeconfig") for identifier in parts)
        return
    yield passed("kubeconfig.present", f"{path} is there")
    try:
        found = kubeconfig.parse(look.content)
    except kubeconfig.InvalidKubeconfigError as error:
        yield failed("kubeconfig.valid", f"{path}: {error}", _RUNNING)
        found = None
    else:
        yield passed("kubeconfig.valid", f"it leads to {found.server}")
    yield _mode(settings, look)
    if found is None:
        yield from (skipped(identifier, "see kubeconfig.valid") for identifier in parts[2:])
    else:
        yield _same_as_service_account(settings, view, found)
        yield _token(found.token, view.now)


def _mode(settings: Settings, look: File) -> Finding:
    if look.mode == settings.kubeconfig_mode:
        return passed("kubeconfig.mode", f"{look.mode:o}")
    found = f"mode {look.mode:o}, expected {settings.kubeconfig_mode:o}"
    return failed("kubeconfig.mode", found, "it holds a token: nobody but root shall read it. " + _RUNNING)


def _same_as_service_account(settings: Settings, view: View, found: Access) -> Finding:
    identifier = "kubeconfig.current"
    token, authority = view.seen.token, view.seen.certificate_authority
    if view.kubeconfig_file != settings.kubeconfig_file:
        return skipped(identifier, "it is not the one that the entrypoint writes")
    if isinstance(token, Absent):
        advice = "set automountServiceAccountToken and a serviceAccountName"
        return warned(identifier, f"nothing to compare with: {settings.token_file} {token.why}", advice)
    differing = []
    if found.token.encode() != token.content.strip():
        differing.append("token")
    wanted = None if settings.skip_tls_verify or isinstance(authority, Absent) else authority.content
    if (found.certificate_authority or "").strip() != (wanted or b"").decode("utf-8", "replace").strip():
        differing.append("CA")
    if settings.api_server and found.server != settings.api_server:
        differing.append(f"server ({settings.api_server})")
    if differing:
        return failed(identifier, f"other {', '.join(differing)} than the service account's", _RUNNING)
    return passed(identifier, "the same as the service account's")


def _token(token: str, now: float) -> Finding:
    identifier = "kubeconfig.token"
    if not token:
        return warned(identifier, "there is none", "other credentials are not checked")
    try:
        expires = kubeconfig.expiry(token)
        when = "" if expires is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
    except (ValueError, OverflowError, OSError) as error:
        return warned(
            identifier, f"cannot see when it expires: {error}", "see cluster.token for whether it is accepted"
        )
    if expires is None:
        return passed(identifier, "it does not expire")
    if expires <= now:
        return failed(identifier, f"it expired at {when}, and Multus is refused with it", _RUNNING)
    return passed(identifier, f"it expires at {when}")

"""The kubeconfig's part of `check`: its path, its mode, its token, and whether it is up to date. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from entrypoint.check.findings import Finding, failed, passed, skipped, warned
from entrypoint.check.node import RUNNING, View, standing
from entrypoint.cluster.client import Access
from entrypoint.disk.looks import Absent, File, Look
from entrypoint.node import configuration, meshes
from entrypoint.settings import Settings


def access(look: Look) -> Access | None:
    """Return the way into the cluster that a kubeconfig describes; None when there is none."""
    if isinstance(look, Absent):
        return None
    try:
        found = parsed(look.content)
    except InvalidKubeconfigError:
        return None
    return found if found.token else None


def findings(settings: Settings, view: View, path: Path | None, look: Look) -> Iterator[Finding]:
    """Judge everything about the kubeconfig that can be judged without asking the cluster.

    `path` is where the kubeconfig that Multus uses is, None when this container cannot see it; `look` what is there.
    """
    yield _path(settings, view)
    parts = ("kubeconfig.valid", "kubeconfig.mode", "kubeconfig.current", "kubeconfig.token")
    if path is None:
        why = f"--multus-kubeconfig-file-host={settings.kubeconfig_path_on_host} cannot be seen from this container"
        yield from (skipped(identifier, why) for identifier in ("kubeconfig.present", *parts))
        return
    if isinstance(look, Absent):
        yield failed("kubeconfig.present", f"{path} {look.why}", RUNNING)
        yield from (skipped(identifier, "there is no kubeconfig") for identifier in parts)
        return
    yield passed("kubeconfig.present", f"{path} is there")
    try:
        found = parsed(look.content)
    except InvalidKubeconfigError as error:
        yield failed("kubeconfig.valid", f"{path}: {error}", RUNNING)
        yield _mode(settings, look)
        yield from (skipped(identifier, "see kubeconfig.valid") for identifier in parts[2:])
        return
    yield passed("kubeconfig.valid", f"it leads to {found.server}")
    yield _mode(settings, look)
    yield _same_as_service_account(settings, view, path, found)
    yield _token(found.token, view.now)


def _path(settings: Settings, view: View) -> Finding:
    identifier, found = "kubeconfig.path", standing(settings, view)
    named = meshes.named_in(found[1].content, "kubeconfig") if found else ""
    if found is None or not named:
        return skipped(identifier, "there is no configuration that names one")
    astray = configuration.kubeconfig_astray(settings, view.mounted_from, found[1].content)
    if astray:
        return failed(identifier, *astray)
    for fault in view.faults(identifier):
        return failed(identifier, fault.found, fault.todo)
    return passed(identifier, f"{named}, as far as this container can see")


def _mode(settings: Settings, look: File) -> Finding:
    if look.mode == settings.kubeconfig_mode:
        return passed("kubeconfig.mode", f"{look.mode:o}")
    found = f"mode {look.mode:o}, expected {settings.kubeconfig_mode:o}"
    return failed("kubeconfig.mode", found, "it holds a token: nobody but root shall read it. " + RUNNING)


def _same_as_service_account(settings: Settings, view: View, path: Path, found: Access) -> Finding:
    identifier, seen = "kubeconfig.current", view.kubeconfig
    if path != settings.kubeconfig_file:
        return skipped(identifier, "it is not the one that the entrypoint writes")
    if seen is None:
        return skipped(identifier, "see node.directories")
    token, authority = seen.token, seen.authority
    if isinstance(token, Absent):
        advice = "set automountServiceAccountToken and a serviceAccountName"
        return warned(identifier, f"nothing to compare with: {settings.token_file} {token.why}", advice)
    differing = []
    if found.token.encode("utf-8", "replace") != token.content.strip():
        differing.append("token")
    wanted = None if settings.skip_tls_verify or isinstance(authority, Absent) else authority.content
    if (found.certificate_authority or "").strip() != (wanted or b"").decode("utf-8", "replace").strip():
        differing.append("CA")
    if settings.api_server and found.server != settings.api_server:
        differing.append(f"server ({settings.api_server})")
    if differing:
        return failed(identifier, f"other {', '.join(differing)} than the service account's", RUNNING)
    return passed(identifier, "the same as the service account's")


def _token(token: str, now: float) -> Finding:
    identifier = "kubeconfig.token"
    if not token:
        return warned(identifier, "there is none", "other credentials are not checked")
    try:
        expires = expiry(token)
        when = "" if expires is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
    except (ValueError, OverflowError, OSError) as error:
        return warned(
            identifier, f"cannot see when it expires: {error}", "see cluster.token for whether it is accepted"
        )
    if expires is None:
        return passed(identifier, "it does not expire")
    if expires <= now:
        return failed(identifier, f"it expired at {when}, and Multus is refused with it", RUNNING)
    return passed(identifier, f"it expires at {when}")


# ---- reading it back ----


class InvalidKubeconfigError(ValueError):
    """The content is no kubeconfig that Multus could use; the message says why."""


def parsed(content: bytes) -> Access:
    """Return where the current context leads and with what token; an empty token when it uses other credentials.

    Raises `InvalidKubeconfigError`.
    """
    try:
        document = yaml.safe_load(content)
    except Exception as error:  # PyYAML lets KeyError, IndexError and others out for values with a type's tag
        why = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidKubeconfigError(f"not YAML: {why}") from None
    if not isinstance(document, dict):
        raise InvalidKubeconfigError("expected a YAML mapping")
    context = _named(document, "contexts", "context", document.get("current-context"))
    cluster = _named(document, "clusters", "cluster", context.get("cluster"))
    user = _named(document, "users", "user", context.get("user"))
    server, token = cluster.get("server"), user.get("token", "")
    if not isinstance(server, str) or not isinstance(token, str):
        raise InvalidKubeconfigError("its server or token is not a string")
    return Access(server, token, _authority(cluster))


def expiry(token: str) -> float | None:
    """Return when the token expires (seconds since 1970), None for never.

    Raises ValueError when that cannot be seen because the token is not a JWT.
    """
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        raise ValueError("not a JWT")
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    if not isinstance(claims, dict):
        raise ValueError("not a JWT")  # noqa: TRY004
    expires = claims.get("exp")
    if expires is None:
        return None
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise ValueError("its 'exp' is not a number")  # noqa: TRY004
    return float(expires)


def _named(document: dict[str, Any], kind: str, content: str, name: object) -> dict[str, Any]:
    """Return the entry of this name from one of the lists of a kubeconfig."""
    entries = document.get(kind)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(content), dict):
            return dict(entry[content])
    raise InvalidKubeconfigError(f"it has no {content} named {name!r} among its {kind}")


def _authority(cluster: dict[str, Any]) -> str | None:
    if cluster.get("insecure-skip-tls-verify") is True:
        return None
    encoded = cluster.get("certificate-authority-data")
    if not isinstance(encoded, str):
        raise InvalidKubeconfigError("it has no certificate-authority-data")
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise InvalidKubeconfigError("its certificate-authority-data is not base64") from None

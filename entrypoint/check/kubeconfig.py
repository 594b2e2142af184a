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
from entrypoint.check.node import RUNNING, View
from entrypoint.cluster.client import Access
from entrypoint.disk.looks import Absent, File, Look
from entrypoint.node import configuration, kubeconfig, meshes
from entrypoint.node.steps import Write
from entrypoint.settings import Settings


def findings(view: View, path: Path | None, look: Look, found: Access | str, now: float) -> Iterator[Finding]:
    """Judge everything about the kubeconfig that can be judged without asking the cluster.

    `path` is where the kubeconfig that Multus uses is, None when this container cannot see it; `look` what is there;
    `found` where that leads (`read_back`); `now` the seconds since 1970.
    """
    yield _path(view)
    present, valid, *others = (f"kubeconfig.{part}" for part in ("present", "valid", "mode", "current", "token"))
    if path is None:
        why = (
            f"--multus-kubeconfig-file-host={view.settings.kubeconfig_path_on_host} cannot be seen from this container"
        )
        yield from (skipped(each, why, "look for it on the node") for each in (present, valid, *others))
        return
    if isinstance(look, Absent):
        yield failed(present, f"{path} {look.why}", RUNNING)
        yield from (skipped(each, f"see {present}") for each in (valid, *others))
        return
    yield passed(present, f"{path} is there")
    if isinstance(found, Access):
        yield passed(valid, f"it leads to {found.server}")
        yield _mode(view.settings, look)
        yield _same_as_service_account(view, path, found)
        yield _token(found.token, now)
    else:
        yield failed(valid, f"{path}: {found}", RUNNING)
        yield _mode(view.settings, look)
        yield from (skipped(each, f"see {valid}") for each in others[1:])


def _path(view: View) -> Finding:
    identifier, standing = "kubeconfig.path", view.standing
    named = meshes.named_in(standing[1].content, "kubeconfig") if standing else ""
    if standing is None or not named:
        return skipped(identifier, "there is no configuration that names one")
    if astray := configuration.kubeconfig_astray(view.settings, view.mounted_from, standing[1].content):
        return failed(identifier, *astray)
    return view.fault(identifier) or passed(identifier, f"{named}, as far as this container can see")


def _mode(settings: Settings, look: File) -> Finding:
    if look.mode == settings.kubeconfig_mode:
        return passed("kubeconfig.mode", f"{look.mode:o}")
    found = f"mode {look.mode:o}, expected {settings.kubeconfig_mode:o}"
    return failed("kubeconfig.mode", found, "it holds a token: nobody but root shall read it. " + RUNNING)


def _same_as_service_account(view: View, path: Path, found: Access) -> Finding:
    identifier, settings, seen = "kubeconfig.current", view.settings, view.seen(kubeconfig.Seen)
    if path != settings.kubeconfig_file:
        return skipped(identifier, "it is not the one that the entrypoint writes")
    if seen is None:
        return skipped(identifier, "see node.directories")
    if fault := view.fault(identifier):
        return fault
    if isinstance(seen.token, Absent):
        advice = "set automountServiceAccountToken and a serviceAccountName"
        return warned(identifier, f"nothing to compare with: {settings.token_file} {seen.token.why}", advice)
    steps = [step for wish in view.decision.wishes for step in wish.steps]
    wanted = next((read_back(step.content) for step in steps if isinstance(step, Write) and step.path == path), found)
    parts = {"token": "token", "CA": "certificate_authority", "server": "server"}
    differing = [name for name, part in parts.items() if getattr(found, part) != getattr(wanted, part)]
    if differing:
        return failed(identifier, f"other {', '.join(differing)} than the service account's", RUNNING)
    return passed(identifier, "the same as the service account's")


def _token(token: str, now: float) -> Finding:
    identifier = "kubeconfig.token"
    if not token:
        return warned(identifier, "there is none", "other credentials are not checked: see that they are valid")
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


def read_back(content: bytes) -> Access | str:
    """Return where the current context leads and with what token; an empty token when it uses other credentials.

    Or why the content is no kubeconfig that Multus could use.
    """
    try:
        document = yaml.safe_load(content)
    except Exception as error:  # PyYAML lets KeyError, IndexError and others out for values with a type's tag
        return f"not YAML: {str(error).partition(chr(10))[0] or type(error).__name__}"
    if not isinstance(document, dict):
        return "expected a YAML mapping"
    try:
        context = _named(document, "contexts", "context", document.get("current-context"))
        cluster = _named(document, "clusters", "cluster", context.get("cluster"))
        user = _named(document, "users", "user", context.get("user"))
        server, token = cluster.get("server"), user.get("token", "")
        if not isinstance(server, str) or not isinstance(token, str):
            return "its server or token is not a string"
        return Access(server, token, _authority(cluster))
    except ValueError as error:
        return str(error)


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
    raise ValueError(f"it has no {content} named {name!r} among its {kind}")


def _authority(cluster: dict[str, Any]) -> str | None:
    if cluster.get("insecure-skip-tls-verify") is True:
        return None
    encoded = cluster.get("certificate-authority-data")
    if not isinstance(encoded, str):
        raise ValueError("it has no certificate-authority-data")  # noqa: TRY004
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise ValueError("its certificate-authority-data is not base64") from None

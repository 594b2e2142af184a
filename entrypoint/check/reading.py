"""Reading a kubeconfig back, and the token in it."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import yaml

from entrypoint.cluster.client import Access


class InvalidKubeconfigError(ValueError):
    """The content is no kubeconfig that Multus could use; the message says why."""


def parse(content: bytes) -> Access:
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

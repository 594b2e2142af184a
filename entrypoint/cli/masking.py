"""Secrets out of what `--dry-run` prints, with all else left as it stands in the file. Pure."""

from __future__ import annotations

import contextlib
import json
import re

MASK = '"(masked)"'

_SECRET = re.compile(
    "token|passw(or)?d|passphrase|secret|credential|(private|access|api|auth|shared)key|keydata|bearer"
)
"""What the name of a secret holds, once it is in lower case and without punctuation."""
_PLACE = re.compile("(file|path|dir|ref|name)s?$")
"""How the name ends of what only says where a secret is."""
_SECRET_ITSELF = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\beyJ[\w-]+\.eyJ[\w-]+\.")
"""What nobody takes for anything else, whatever it is called: a private key in PEM, a JSON web token."""
_USER_IN_URL = re.compile(r'(?<=://)[^/\s"@]+(?=@)')
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BEFORE_VALUE = re.compile(r"\s*:\s*")
_YAML_TOKEN = re.compile(r'(?m)^( *token: )".*"$')


def masked(content: bytes) -> str:
    """Return a JSON document, or our kubeconfig, with every secret in it replaced.

    A secret is what has the name of one, and what looks like one under any name.
    """
    text = _YAML_TOKEN.sub(rf"\1{MASK}", content.decode("utf-8", "replace"))
    parts, end = [], 0
    while string := _STRING.search(text, end):
        parts.append(text[end : string.start()])
        end = string.end()
        before_value = _BEFORE_VALUE.match(text, end)
        if before_value is None:
            parts.append(_value(string[0]))
            continue
        parts.append(string[0] + before_value[0])
        end = before_value.end()
        if _is_secret(string[0]) and (value_end := _end_of_value(text, end)) is not None:
            parts.append(MASK)
            end = value_end
    return "".join([*parts, text[end:]])


def _value(string: str) -> str:
    return MASK if _SECRET_ITSELF.search(string) else _USER_IN_URL.sub("(masked)", string)


def _is_secret(string: str) -> bool:
    with contextlib.suppress(ValueError):  # of no JSON string
        string = json.loads(string, strict=False)
    name = re.sub(r"[\W_]", "", string.lower())
    return _SECRET.search(name) is not None and _PLACE.search(name) is None


def _end_of_value(text: str, start: int) -> int | None:
    """Return where the value ends that starts there; None for what hides nothing: true, false, null and empty ones."""
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start)
    except ValueError:
        return None  # in YAML
    return None if isinstance(value, bool) or value in (None, "", [], {}) else end

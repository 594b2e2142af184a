"""JSON as programs written in Go take it: read as strictly, compared alike, and within limits. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_CONFIGURATION = 256 << 10
"""The most that a configuration may have, in bytes, as a file and as compact JSON. Real ones have some kilobytes."""
MAX_DEPTH = 400
"""How deep objects and lists may nest: far more than any configuration does, and well inside what json can write."""
_SHOWN_DIGITS = 40


class InvalidJsonError(ValueError):
    """The bytes are not the JSON that a CNI runtime would read; the message says where."""


def size_fault(size: int) -> str | None:
    """Say that this is too much for a configuration; None when it is not."""
    return f"has {size} bytes, and {MAX_CONFIGURATION} are the most that is read" if size > MAX_CONFIGURATION else None


def parse(content: bytes) -> Any:
    """Read JSON as strictly as a CNI runtime does: UTF-8, no NaN, no numbers beyond a double's range.

    Raises `InvalidJsonError` with line and column where the parser knows them.
    """
    if not content.strip():
        raise InvalidJsonError("the file is empty")
    try:
        text = content.decode("utf-8")
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidJsonError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except _NumberError as error:
        where = json.JSONDecodeError("", text, max(0, text.find(error.literal)))
        raise InvalidJsonError(f"{error} at line {where.lineno} column {where.colno}") from None
    except RecursionError:
        raise InvalidJsonError("nested too deeply") from None


def depth_fault(document: dict[str, Any]) -> str | None:
    """Say that objects and lists nest too deeply to be written; None when they do not."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return None
    return f"nested more than {MAX_DEPTH} levels deep"


def kind(value: object) -> str:
    """Return what kind of JSON a value is, as messages name it."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


class _NumberError(ValueError):
    def __init__(self, message: str, literal: str) -> None:
        super().__init__(message)
        self.literal = literal


def _refuse_constant(name: str) -> float:
    raise _NumberError(f"not JSON: {name} is no JSON number", name)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        short = digits if len(digits) <= _SHOWN_DIGITS else f"{digits[:_SHOWN_DIGITS]}…"
        raise _NumberError(f"the number {short} is beyond what a double holds", digits)
    return number


def _whole(digits: str) -> int:
    _finite(digits)  # a runtime written in Go reads every number as a double
    return int(digits)


def equal(one: object, other: object) -> bool:
    """Compare JSON as Go keeps it: all numbers are doubles, lone surrogates are U+FFFD, keys have no order."""
    return bool(_as_in_go(one) == _as_in_go(other))


def _as_in_go(value: object) -> object:
    match value:
        case bool() | None:
            return (value,)  # in Python, True is 1
        case int() | float():
            return float(value)
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_as_in_go(each) for each in value]
        case dict():
            return {_as_in_go(key): _as_in_go(each) for key, each in value.items()}
        case _:
            return value

"""Writes entrypoint/compiled.py from the templates; `--check` only compares.

Jinja2 reads the templates, here and not on the nodes, where importing and compiling took a fifth of a start's CPU time
and 3 MiB of the resident process. Its syntax tree becomes plain functions. What no template of ours uses is refused,
not guessed at.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, StrictUndefined, meta, nodes

PACKAGE = Path(__file__).parent.parent / "entrypoint"
TEMPLATES = PACKAGE / "templates"
TARGET = PACKAGE / "compiled.py"
HEADER = '''"""The templates as functions: made by `make templates` from templates/*.j2, where changes belong.

Each function takes the filter `json` and the values of its template, and yields the pieces of the document.
"""

from collections.abc import Callable, Iterator
from typing import Any

Json = Callable[..., str]
'''
FILTERS = ("json",)
WIDTH = 120


class UnsupportedError(Exception):
    """A template uses what is not compiled; the message names the template's line and the construct."""


def environment() -> Environment:
    """Return Jinja2 as the templates were written for: a value that is not given is an error."""
    made = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701 - every value passes the json filter
    made.filters.update(dict.fromkeys(FILTERS, str))  # so that the parser knows the names
    return made


def compiled() -> str:
    """Return the module's source."""
    return HEADER + "".join(function(path.stem, path.read_text("utf-8")) for path in sorted(TEMPLATES.glob("*.j2")))


def function(name: str, source: str) -> str:
    """Return one template as the source of a function."""
    tree = environment().parse(source)
    values = "".join(f", {value}: Any" for value in sorted(meta.find_undeclared_variables(tree)))
    signature = f"def {name.replace('.', '_')}(json: Json, *{values}) -> Iterator[str]:"
    return "\n".join(["", "", signature, f'    """Yield {name}.j2."""', *block(tree.body, 1)]) + "\n"


def block(body: list[nodes.Node], depth: int) -> Iterator[str]:
    """Yield the lines of a run of nodes, `depth` levels in."""
    indent = "    " * depth
    for node in body:
        match node:
            case nodes.Output():
                for part in node.nodes:
                    if isinstance(part, nodes.TemplateData):
                        yield from text(part.data, indent)
                    else:
                        yield f"{indent}yield {filtered(part)}"
            case nodes.If(elif_=[]):
                yield f"{indent}if {condition(node.test)}:"
                yield from block(node.body, depth + 1)
                if node.else_:
                    yield f"{indent}else:"
                    yield from block(node.else_, depth + 1)
            case nodes.For(target=nodes.Tuple() as target, iter=nodes.Name() as iterated, else_=[], test=None):
                names = ", ".join(plain(each) for each in target.items)
                yield f"{indent}for {names} in {plain(iterated)}:"
                yield from block(node.body, depth + 1)
            case _:
                raise unsupported(node)


def filtered(node: nodes.Node) -> str:
    """Return the call of a filter; a value without one could end up in the document unquoted."""
    if not isinstance(node, nodes.Filter) or node.name not in FILTERS or node.args or node.node is None:
        raise unsupported(node)
    keywords = "".join(f", {keyword.key}={keyword.value.as_const()!r}" for keyword in node.kwargs)
    return f"{node.name}({plain(node.node)}{keywords})"


def condition(node: nodes.Node) -> str:
    match node:
        case nodes.Test(node=nodes.Name() as value, name="none"):
            return f"{plain(value)} is None"
        case _:
            raise unsupported(node)


def plain(node: nodes.Node) -> str:
    if not isinstance(node, nodes.Name):
        raise unsupported(node)
    return node.name


def text(data: str, indent: str) -> Iterator[str]:
    """Yield the lines that yield the text, one for each line of the document where it is long."""
    line = f"{indent}yield {literal(data)}"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"{indent}yield ("
    yield from (f"{indent}    {literal(each)}" for each in data.splitlines(keepends=True))
    yield f"{indent})"


def literal(data: str) -> str:
    """Return the text as a string of Python's, in the quotes that the formatter would choose."""
    escaped = repr(data)[1:-1].replace("\\'", "'")
    return f"'{escaped}'" if '"' in data and "'" not in data else '"{}"'.format(escaped.replace('"', '\\"'))


def unsupported(node: nodes.Node) -> UnsupportedError:
    return UnsupportedError(f"line {node.lineno}: {type(node).__name__} is not compiled")


def main() -> None:
    source = compiled()
    if "--check" not in sys.argv:
        TARGET.write_text(source, "utf-8")
    elif not TARGET.exists() or source != TARGET.read_text("utf-8"):
        sys.exit(f"{TARGET.name} is stale, run `make templates`")


if __name__ == "__main__":
    main()

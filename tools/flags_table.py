"""Writes the tables of docs/flags.md from the command line's own declarations; `--check` only compares.

The page has a place for each group of flags: `<!-- flags: GROUP -->`, the table, `<!-- end of flags -->`.
"""

import re
import sys
from pathlib import Path

import click

from entrypoint.cli.flags import ENTRYPOINT
from entrypoint.cli.options import Flag

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/flags.md"
PLACE = re.compile(r"(<!-- flags: (.*) -->\n)(?:\|.*\n)*(<!-- end of flags -->)")


def tables() -> dict[str, str]:
    """Return the table of each group, in the order of `--help`."""
    rows: dict[str, list[str]] = {}
    for flag in ENTRYPOINT:
        assert isinstance(flag, Flag)
        if flag.hidden:
            continue
        shown = flag.show_default if isinstance(flag.show_default, str) else flag.default
        literal = shown == flag.default or flag.type is click.BOOL or str(shown).startswith("/")
        default = "" if shown in {None, "", ()} else f"`{shown}`" if literal else shown
        rows.setdefault(flag.group, []).append(f"| `{flag.opts[0]}` | {default} | {flag.help} |\n")
    return {
        group: "".join(["| Flag | Default | What it does |\n|---|---|---|\n", *found]) for group, found in rows.items()
    }


def main() -> None:
    """Write the page, or end with a message when it is stale."""
    text, wanted = PAGE.read_text("utf-8"), tables()
    if [place[2] for place in PLACE.finditer(text)] != list(wanted):
        sys.exit(f"{PAGE.relative_to(ROOT)}: expected a place for each of {', '.join(wanted)}, in this order")
    filled = PLACE.sub(lambda place: place[1] + wanted[place[2]] + place[3], text)
    if "--check" not in sys.argv:
        PAGE.write_text(filled, "utf-8")
    elif filled != text:
        sys.exit(f"{PAGE.relative_to(ROOT)}: a table of flags is stale, run `make docs`")


if __name__ == "__main__":
    main()

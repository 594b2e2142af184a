"""Writes the table of flags into the pages from the command line's own declarations; `--check` only compares."""

import sys
from pathlib import Path

from entrypoint.cli.flags import ENTRYPOINT
from entrypoint.cli.options import BOOLEAN, Flag

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs/usage.md")
BEGIN, END = "<!-- flags: made by `make docs` -->", "<!-- end of flags -->"


def table() -> str:
    lines = ["| Flag | Default | What it does |", "|---|---|---|"]
    group = ""
    for flag in ENTRYPOINT:
        assert isinstance(flag, Flag)
        if flag.hidden:
            continue
        if flag.group != group:
            group = flag.group
            lines.append(f"| **{group}** | | |")
        shown = flag.show_default if isinstance(flag.show_default, str) else flag.default
        default = (
            "" if shown in {None, "", ()} else f"`{shown}`" if shown == flag.default or flag.type is BOOLEAN else shown
        )
        lines.append(f"| `{flag.opts[0]}` | {default} | {flag.help} |")
    return "\n".join(lines)


def main() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        before, rest = text.split(BEGIN)
        _, after = rest.split(END)
        wanted = f"{before}{BEGIN}\n{table()}\n{END}{after}"
        if "--check" not in sys.argv:
            page.write_text(wanted, "utf-8")
        elif wanted != text:
            sys.exit(f"{page.relative_to(ROOT)}: the table of flags is stale, run `make docs`")


if __name__ == "__main__":
    main()

"""Draw the beginning of the demo's output as docs/demo.svg, for the README: `make picture`.

The text is what a real run prints, in the colours of a terminal. Lines that are too long for the picture are cut.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs/demo.svg"
UNTIL = re.compile(r"^\S*4\. ", re.MULTILINE)
"""The step that is no longer drawn: the rest would not fit on a screen."""
COLUMNS = 133
WIDTH, HEIGHT, MARGIN = 7.25, 17, 14  # of a character, a line and the border, in pixels
STYLES = {"0": "", "1": "b", "2": "d", "31": "r", "32": "g", "36": "c"}
"""The codes of a terminal that the demo uses, and the class of each in the picture."""
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" aria-label="{label}">
<style>
text {{ font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #d0d7de; white-space: pre }}
.b {{ fill: #ffffff; font-weight: bold }} .d {{ fill: #8b949e }} .r {{ fill: #ff7b72 }}
.g {{ fill: #7ee787 }} .c {{ fill: #79c0ff }}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
"""


def drawn(output: str) -> str:
    """Return the picture of what the demo printed with colours."""
    lines = output[: UNTIL.search(output).start()].rstrip().splitlines()
    head = HEAD.format(
        width=COLUMNS * WIDTH + 2 * MARGIN,
        height=len(lines) * HEIGHT + 2 * MARGIN,
        label="The first three steps of the demo, as a terminal shows them",
    )
    texts = [
        f'<text x="{MARGIN}" y="{MARGIN + HEIGHT * number - 4}" xml:space="preserve">{line(text)}</text>\n'
        for number, text in enumerate(lines, 1)
        if text
    ]
    return head + "".join(texts) + "</svg>\n"


def line(text: str) -> str:
    """Return one line of a terminal as the content of a `text` element."""
    room, style, parts = COLUMNS, "", []
    for code, content in re.findall(r"(?:\033\[(\d+)m)|([^\033]+)", text):
        if code:
            style = STYLES[code]
            continue
        shown = content if len(content) <= room else content[: max(0, room - 1)] + "…"
        room = max(0, room - len(content))
        parts.append(f'<tspan class="{style}">{escape(shown)}</tspan>' if style else escape(shown))
    return "".join(parts)


def run() -> str:
    """Run the demo, and return what it prints."""
    environment = {**os.environ, "FORCE_COLOR": "1"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, ROOT / "demo/demo.py"]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def same(picture: str) -> str:
    """Return a picture without what differs from run to run: times, and how long something took."""
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\d+\.\d ms", "…", picture)


if __name__ == "__main__":
    PICTURE.write_text(drawn(run()), "utf-8")

"""What a terminal would show: the cells after a program's output, and a picture of them.

Knows what `oegw top` sends and no more; what it does not know is an error.

    python -m tests.support.screen SECONDS COLUMNSxLINES FILE.svg -- COMMAND ...

runs a command in a terminal of that size, and draws what it shows after so many seconds.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

_CODE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")


class Screen:
    """A page of cells; each has a character and the attributes it was written with."""

    def __init__(self, columns: int, lines: int) -> None:
        self.alternate = False
        self.codes: set[str] = set()  # all attributes ever used
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.cells = [[(" ", "")] * columns for _ in range(lines)]
        self._x = self._y = 0
        self._attributes = ""
        self._rest = ""

    def feed(self, text: str) -> None:
        text = self._rest + text
        self._rest = ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = _CODE.match(text, at)
                if found is None:
                    self._rest = text[at:]
                    assert len(self._rest) < 20, repr(self._rest)
                    return
                self._obey(*found.groups())
                at = found.end()
                continue
            self._put(text[at])
            at += 1

    def _put(self, character: str) -> None:
        if character == "\r":
            self._x = 0
        elif character == "\n":
            self._y = min(self._y + 1, self.lines - 1)
        elif self._x < self.columns:
            self.cells[self._y][self._x] = (character, self._attributes)
            self._x += 1

    def _obey(self, private: str, numbers: str, letter: str) -> None:
        match private + letter:
            case "H":
                self._x = self._y = 0
            case "K":
                self.cells[self._y][self._x :] = [(" ", "")] * (self.columns - self._x)
            case "J":
                for y in range(self._y + 1, self.lines):
                    self.cells[y] = [(" ", "")] * self.columns
            case "m":
                self._attributes = "" if numbers in ("", "0") else numbers
                self.codes.update(filter(None, self._attributes.split(";")))
            case "?h" | "?l" if numbers in ("25", "7"):
                pass
            case "?h" | "?l" if numbers == "1049":
                self.alternate = letter == "h"
            case other:
                raise AssertionError(f"{numbers} {other}")

    @property
    def rows(self) -> list[str]:
        return ["".join(character for character, _ in row).rstrip() for row in self.cells]

    def __str__(self) -> str:
        return "\n".join(self.rows)


class InTerminal:
    """A command in a terminal of its own; a context that ends it."""

    def __init__(
        self,
        command: Sequence[str],
        columns: int = 100,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = Screen(columns, lines)
        self.code: int | None = None
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execve(command[0], list(command), {**os.environ, **(environment or {})})
        self.resize(columns, lines)

    def __enter__(self) -> InTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(columns, lines)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def read(self, seconds: float) -> bool:
        """Take what comes in that time; False once there is an end."""
        readable, _, _ = select.select((self._terminal,), (), (), seconds)
        if not readable:
            return True
        try:
            octets = os.read(self._terminal, 65536)
        except OSError:  # the other side is closed
            octets = b""
        self.screen.feed(octets.decode("utf-8", "replace"))
        return bool(octets)

    def until(self, true: Callable[[Screen], object], patience: float = 20.0) -> None:
        """Read until the screen is so."""
        deadline = time.monotonic() + patience
        while not true(self.screen):
            assert time.monotonic() < deadline, f"\n{self.screen}"
            assert self.read(0.1) or true(self.screen), f"it ended:\n{self.screen}"

    def ended(self, patience: float = 20.0) -> int:
        """Its exit code."""
        deadline = time.monotonic() + patience
        while self.read(0.1):
            assert time.monotonic() < deadline, f"\n{self.screen}"
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        return self.code


_COLOURS = {"31": "bad", "32": "good", "33": "weak", "36": "busy"}
_WIDE, _HIGH = 8.4, 18  # of a cell
_STYLE = """
.back{fill:#10151d}.text{fill:#e6ebf2}.good{fill:#4ade80}.weak{fill:#fbbf24}.bad{fill:#f87171}
.busy{fill:#67e8f9}.faint{fill:#94a3b8}.bar{fill:#cbd5e1}.on{fill:#10151d}.strong{font-weight:700}
text{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;font-size:14px;
white-space:pre}
"""


def picture(screen: Screen, title: str) -> str:
    """The screen as SVG: a piece of text for each run of cells with the same attributes."""
    width, height = screen.columns * _WIDE + 32, screen.lines * _HIGH + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" role="img" aria-labelledby="title text">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="text">{escape(str(screen).rstrip())}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{width:.0f}" height="{height}" rx="10"/>',
    ]
    for y, row in enumerate(screen.cells):
        x = 0
        while x < len(row):
            end = x
            while end < len(row) and row[end][1] == row[x][1]:
                end += 1
            parts += _run("".join(c for c, _ in row[x:end]), row[x][1], x, y)
            x = end
    return "\n".join([*parts, "</svg>", ""])


def _run(text: str, attributes: str, x: int, y: int) -> list[str]:
    codes = attributes.split(";")
    left, base = 16 + x * _WIDE, 15 + y * _HIGH + 13
    parts = []
    if "7" in codes:
        parts.append(
            f'<rect class="bar" x="{left:.1f}" y="{base - 13}" width="{len(text) * _WIDE:.1f}" '
            f'height="{_HIGH}"/>'
        )
    if text.strip():
        colour = next((_COLOURS[c] for c in codes if c in _COLOURS), "text")
        colour = "on" if "7" in codes else "faint" if "2" in codes else colour
        strong = " strong" if "1" in codes else ""
        parts.append(
            f'<text class="{colour}{strong}" x="{left:.1f}" y="{base}" '
            f'textLength="{len(text) * _WIDE:.1f}" xml:space="preserve">{escape(text)}</text>'
        )
    return parts


def _main(seconds: str, size: str, file: str, dashes: str, *command: str) -> None:
    assert dashes == "--"
    columns, lines = (int(number) for number in size.split("x"))
    with InTerminal(command, columns, lines) as shown:
        deadline = time.monotonic() + float(seconds)
        while time.monotonic() < deadline:
            shown.read(0.05)
        Path(file).write_text(picture(shown.screen, "oegw top"), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""The terminal: raw keys, the alternate screen, its size; all as it was before when we leave."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # alternate screen, no cursor, no wrapping
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1b[H": "home", b"\x1b[F": "end",
    b"\x1b[1~": "home", b"\x1b[4~": "end",
}  # fmt: skip
_SIGNALS = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT)
_BYTES = {b"\r": "enter", b"\n": "enter", b"\x7f": "erase", b"\x08": "erase", b"\x15": "clear"}


def keys_of(octets: bytes) -> Iterator[str]:
    """The names of the keys that were pressed; a printable character is its own name."""
    while octets:
        for sequence, name in _SEQUENCES.items():
            if octets.startswith(sequence):
                yield name
                octets = octets[len(sequence) :]
                break
        else:
            if octets[:1] == b"\x1b":
                if octets[1:2] in (b"[", b"O"):  # one that we don't know
                    end = next((i for i in range(2, len(octets)) if octets[i] >= 0x40), None)
                    octets = octets[len(octets) if end is None else end + 1 :]
                else:
                    yield "escape"
                    octets = octets[1:]
            elif octets[:1] in _BYTES:
                yield _BYTES[octets[:1]]
                octets = octets[1:]
            else:
                text = octets.decode("utf-8", "ignore")[:1]
                octets = octets[len(text.encode()) or 1 :]
                if text.isprintable() and text:
                    yield text


class Terminal:
    """Standard input and output, if both are a terminal."""

    def __init__(self) -> None:
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._wakeful, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._wakeful, False)

    def wake(self) -> None:
        """Have `wait` return; from any thread."""
        with suppress(BlockingIOError):
            os.write(self._waker, b"w")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Ours until the end, whatever that is."""
        before = termios.tcgetattr(self._input)
        former = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        self._before = before
        self._ended = False
        try:
            self._begin()
            yield
        finally:
            for number, disposition in former.items():
                signal.signal(number, disposition)
            with suppress(OSError, termios.error):  # the terminal may be gone
                self._give_back()

    def _give_back(self) -> None:
        self._write(_LEAVE)
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def _begin(self) -> None:
        tty.setcbreak(self._input)  # Ctrl-C and Ctrl-Z stay what they are
        self._write(_ENTER)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGHUP):
            self._ended = True
        elif number == signal.SIGTSTP:  # Ctrl-Z: the shell wants its screen
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
        elif number == signal.SIGCONT:
            self._begin()
        self.wake()

    @property
    def ended(self) -> bool:
        """Whether we were told to end."""
        return self._ended

    def wait(self, seconds: float) -> list[str]:
        """Keys that were pressed; waits until there is one, something else has happened, or the
        time is over.  Raises EOFError if the terminal is gone."""
        readable, _, _ = select.select((self._input, self._wakeful), (), (), max(0.0, seconds))
        if self._wakeful in readable:
            with suppress(BlockingIOError):
                os.read(self._wakeful, 4096)
        if self._input not in readable:
            return []
        try:
            octets = os.read(self._input, 4096)
        except OSError:
            octets = b""
        if not octets:
            raise EOFError
        return list(keys_of(octets))

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            size = os.get_terminal_size(self._output)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24

    def show(self, lines: Sequence[str]) -> None:
        """The page; what is on the screen is written over, so that nothing flickers."""
        text = "\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J"
        self._write(text)

    def _write(self, text: str) -> None:
        octets = text.encode(sys.stdout.encoding or "utf-8", "replace")
        while octets:
            octets = octets[os.write(self._output, octets) :]

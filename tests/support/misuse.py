"""The command `oegw` misused: in this process where that is the same, else in one of its own."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from oegw import cli
from oegw.arguments import parser_of

ROOT = Path(__file__).parents[2]
NOBODY = 65534
_LINE = re.compile(r"oegw( \w+)?: \S.*")

SAMPLES = {
    "source": ("192.1.0.65",),
    "destination": ("192.2.0.66",),
    "host": ("h.invalid",),
    "name": ("web",),
    "uri": ("http://web.h.invalid.mon/",),
    "what": ("h.invalid",),
    "argv": ("--", "true", "{port}"),
    "--out": ("--out", "/nowhere/key.pem"),
}
"""What stands for arguments that a command can't do without, by their names."""


MAIN = """\
version = 1
[gateway]
addresses = "192.1.1.4"
private_key = "gateway.pem"
control_socket = "control.sock"
state = "state.db"
[interfaces]
outside = "out0"
[dns]
resolvers = "192.1.1.53"
"""
"""A configuration without fault, of SG-A."""


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command by its words."""
    return dict(_walk(parser_of(cli._COMMANDS), ""))


def _walk(
    parser: argparse.ArgumentParser, words: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    if parser.get_default("command") is not None:
        yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                yield from _walk(each, f"{words} {name}".strip())


def has(parser: argparse.ArgumentParser, option: str) -> bool:
    return any(option in action.option_strings for action in parser._actions)


def needed(parser: argparse.ArgumentParser) -> list[str]:
    """Arguments without which the command line would be wrong."""
    words: list[str] = []
    for action in parser._actions:
        optional = not action.required or action.nargs in ("*", "?")
        if not (optional or isinstance(action, argparse._SubParsersAction)):
            name = action.option_strings[0] if action.option_strings else action.dest
            words += SAMPLES.get(name, (name,))
    return words


def sentence(stderr: str) -> str:
    """The one line that says what is wrong; notes may precede it."""
    assert "Traceback" not in stderr, stderr
    lines = stderr.splitlines()
    assert all(_LINE.fullmatch(line) for line in lines), stderr
    said = [line for line in lines if not line.startswith("oegw: note: ")]
    assert len(said) == 1, stderr
    return said[0]


def run(*words: object, **more: Any) -> tuple[int, str, str]:
    """A process of its own: exit code and what it wrote."""
    command = [sys.executable, "-P", "-m", "oegw", *map(_word, words)]
    done = subprocess.run(
        command, env=environment(), timeout=60, check=False,
        **({"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | more), stderr=subprocess.PIPE,
    )  # fmt: skip
    return done.returncode, _text(done.stdout), _text(done.stderr)


def started(*words: object, **more: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "oegw", *map(_word, words)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, **more)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **(more or {})}


def _word(word: object) -> str | bytes:
    return word if isinstance(word, bytes) else str(word)


def _text(octets: bytes | None) -> str:
    return (octets or b"").decode("utf-8", errors="replace")


@contextmanager
def answering(path: Path, *lines: Mapping[str, Any]) -> Iterator[threading.Event]:
    """Somebody at a control socket who gives these answers, or none; the event: it was asked."""
    asked = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                asked.set()
                with suppress(OSError):
                    said = (json.dumps(line).encode() + b"\n" for line in lines)
                    connection.sendall(b"".join(said))
                if not lines:
                    connection.recv(1)  # until the other side leaves

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            path.unlink()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(30)


@contextmanager
def bound(kind: int, address: str, port: int) -> Iterator[None]:
    """A port that is taken."""
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((address, port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        yield


def filled(directory: Path, words: Sequence[object]) -> tuple[int, str, str]:
    """``words`` in a process that finds the file system of ``directory`` full: exit code, what it
    says, and what is left there."""
    script = (
        'mount -t tmpfs -o size=16k,nr_inodes=50 none "$0" && '
        '{ cat /dev/zero >"$0/full" 2>/dev/null; "$@"; code=$?; ls -A "$0"; exit $code; }'
    )
    command = [sys.executable, "-P", "-m", "oegw", *map(str, words)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, directory, *command],
        env=environment(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, _text(done.stderr), _text(done.stdout)

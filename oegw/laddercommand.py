"""What `oegw probe` does with the steps: a ladder in the terminal, a picture in a file."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from oegw.exitcodes import FAILED, NOT_PERMITTED, Failure
from oegw.ladder import Ladder, ladder_of
from oegw.laddersvg import picture
from oegw.laddertext import drawn
from policy.flow import Flow


class Steps:
    """The lines of the answer to a probe of ``flow``, as they come."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._lines: list[tuple[float, dict[str, Any]]] = []

    def take(self, answer: dict[str, Any]) -> None:
        line, seconds = answer.get("line"), answer.get("seconds")
        if isinstance(line, dict) and isinstance(seconds, int | float):
            self._lines.append((float(seconds), line))

    def ladder(self, answer: dict[str, Any]) -> Ladder:
        """``answer``: the last one."""
        flow = self._flow
        result, reason = str(answer.get("result", "?")), str(answer.get("reason") or "")
        return ladder_of(self._lines, str(flow.source), str(flow.destination), result, reason)


def text(ladder: Ladder) -> str:
    return "\n".join(["", *drawn(ladder)])


@contextmanager
def picture_in(path: Path | None) -> Iterator[list[Ladder]]:
    """A place for ladders, the last of which is drawn in the file at ``path``: as a whole, or not
    at all.  Raises Failure, and at once if there is no writing there."""
    if path is None:
        yield []
        return
    try:
        path = path.resolve()  # a link stays, and leads to the picture
        if path.is_dir():
            raise IsADirectoryError(21, "is a directory")
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "is no regular file")  # not /dev/null to be replaced
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        file = temporary.open("x", encoding="utf-8")
    except OSError as error:
        raise _failure(path, error) from error
    ladders: list[Ladder] = []
    try:
        yield ladders
        try:
            with file:
                if not ladders:
                    return
                file.write(picture(ladders[-1]))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise _failure(path, error) from error
    finally:
        file.close()
        with suppress(OSError):
            temporary.unlink()


def _failure(path: Path, error: OSError) -> Failure:
    code = NOT_PERMITTED if isinstance(error, PermissionError) else FAILED
    return Failure(code, f"--svg {path}: {error.strerror or error}")

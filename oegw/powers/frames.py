"""Messages in a stream between two processes of ours: a length, a kind, octets."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from struct import Struct

_HEADER = Struct("!IB")

# Our choices.
LARGEST = 1 << 26  # octets of one message: the rules of a large policy are one
_READ = 1 << 18
PATIENCE = 30.0  # seconds that the other side may take for what it does at once


class Kind(IntEnum):
    CALL = 1  # to be answered on the same stream
    ASK = 2  # a number, then what is asked
    TELL = 3
    VERDICT = 4  # on a packet
    ANSWER = 5
    REFUSAL = 6
    NEWS = 7


class FrameError(Exception):
    """The stream ended, or is none of ours."""


def frame(kind: Kind, body: bytes) -> bytes:
    return _HEADER.pack(len(body), kind) + body


class Frames:
    """Takes octets as they come; gives messages."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def take(self, octets: bytes) -> Iterator[tuple[Kind, bytes]]:
        """The messages that are whole by now.  Raises FrameError."""
        self._octets += octets
        while len(self._octets) >= _HEADER.size:
            length, number = _HEADER.unpack_from(self._octets)
            if length > LARGEST:
                raise FrameError("a message is too long")
            end = _HEADER.size + length
            if len(self._octets) < end:
                return
            body = bytes(self._octets[_HEADER.size : end])
            del self._octets[:end]
            try:
                kind = Kind(number)
            except ValueError:
                raise FrameError("a message of no kind of ours") from None
            yield kind, body


class Waiting:
    """One side of a stream whose other side is waited for."""

    def __init__(self, stream: socket.socket) -> None:
        stream.settimeout(PATIENCE)
        self._stream = stream
        self._frames = Frames()
        self._broken = ""  # what was not taken or answered in time may come later, for another
        self._come: deque[tuple[Kind, bytes]] = deque()

    def send(self, kind: Kind, body: bytes) -> None:
        """Raises FrameError."""
        if self._broken:
            raise FrameError(self._broken)
        try:
            self._stream.sendall(frame(kind, body))
        except OSError as error:
            raise self._break(error) from None

    def receive(self) -> tuple[Kind, bytes]:
        """Raises FrameError."""
        while not self._come:
            if self._broken:
                raise FrameError(self._broken)
            try:
                octets = self._stream.recv(_READ)
            except OSError as error:
                raise self._break(error) from None
            if not octets:
                raise FrameError("the other side has ended")
            self._come.extend(self._frames.take(octets))
        return self._come.popleft()

    def _break(self, error: OSError) -> FrameError:
        self._broken = error.strerror or "no answer in time"
        return FrameError(self._broken)

    def close(self) -> None:
        self._stream.close()


def read(stream: socket.socket) -> bytes | None:
    """What has come by a stream that does not block; None: nothing yet; empty: it ended."""
    try:
        return stream.recv(_READ)
    except BlockingIOError:
        return None
    except OSError:
        return b""

"""A process that relays: ``python -m oegw.socks5.relay.child CHANNEL PIPES``.

It gets connections through the channel (the descriptor ``CHANNEL``), and lives as long as that.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys

from oegw.socks5.interface import Transferred
from oegw.socks5.relay.channel import (
    MAX_MESSAGE,
    MOST_ENDED,
    Begin,
    Ended,
    parse,
    serialize_ended,
)
from oegw.socks5.relay.mover import Mover
from oegw.socks5.relay.pair import Pair

# Our choices
MESSAGES = 64  # that are read before octets are moved again

TWO = struct.Struct("=ii")  # descriptors


class NumberedPair(Pair):
    """``number``: what the server calls it."""

    __slots__ = ("number",)

    number: int


class Child:
    def __init__(self, channel: socket.socket, pipes: int) -> None:
        self._channel = channel
        self._mover = Mover(pipes, self._over)
        self._pairs: dict[int, Pair] = {}

    def run(self) -> None:
        self._mover.attend(self._channel.fileno(), self._receive)
        self._mover.run()
        self._mover.close()

    def _receive(self) -> None:
        for _ in range(MESSAGES):
            try:
                # Not socket.recv_fds: in Python 3.11 that does not heed its flags.
                octets, ancillary, _, _ = self._channel.recvmsg(
                    MAX_MESSAGE, socket.CMSG_SPACE(TWO.size), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            except OSError:
                octets, ancillary = b"", []
            if not octets:
                self._mover.stop()
                return
            message = parse(octets)
            if isinstance(message, Begin):
                self._begin(message, sockets_in(ancillary))
            elif (pair := self._pairs.get(message.number)) is not None:
                pair.close()

    def _begin(self, message: Begin, sockets: list[socket.socket]) -> None:
        if len(sockets) != 2:  # no descriptor was left
            for sock in sockets:
                sock.close()
            self._tell([(message.number, Transferred(0, 0, "closed"))])
            return
        pair = NumberedPair(
            sockets[0], sockets[1], message.early, message.idle, lambda _: None, self._mover.end
        )
        pair.number = message.number
        self._pairs[message.number] = pair
        self._mover.begin(pair)

    def _over(self, pairs: list[Pair]) -> None:
        told: list[Ended] = []
        for pair in pairs:
            assert isinstance(pair, NumberedPair)
            del self._pairs[pair.number]
            told.append((pair.number, pair.transferred()))
        self._tell(told)

    def _tell(self, told: list[Ended]) -> None:
        for first in range(0, len(told), MOST_ENDED):
            try:
                self._channel.send(serialize_ended(told[first : first + MOST_ENDED]))
            except OSError:  # the server has gone; the end of the channel comes next
                return


def sockets_in(ancillary: list[tuple[int, int, bytes]]) -> list[socket.socket]:
    return [
        socket.socket(fileno=number)
        for level, kind, octets in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (number,) in struct.iter_unpack("=i", octets[: len(octets) // 4 * 4])
    ]


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's to heed; it ends the channel
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with socket.socket(fileno=int(arguments[0])) as channel:
        Child(channel, int(arguments[1])).run()


if __name__ == "__main__":
    main(sys.argv[1:])

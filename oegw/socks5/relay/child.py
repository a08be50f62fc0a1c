"""A process that relays: ``python -m oegw.socks5.relay.child CHANNEL PIPES``.

It gets connections through the channel (the descriptor ``CHANNEL``), and lives as long as that.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys

from oegw.powers.dropping import drop
from oegw.powers.systemcalls import EXECUTING
from oegw.socks5.interface import Transferred
from oegw.socks5.relay.channel import (
    MAX_MESSAGE,
    MOST_ENDED,
    TOGETHER,
    Begin,
    Close,
    Ended,
    parse,
    serialize_ended,
)
from oegw.socks5.relay.mover import Mover
from oegw.socks5.relay.pair import Pair

# Our choices
MESSAGES = 64  # that are read before octets are moved again

SPACE = socket.CMSG_SPACE(2 * TOGETHER * 4)


class Child:
    def __init__(self, channel: socket.socket, pipes: int) -> None:
        self._channel = channel
        self.mover = Mover(pipes, self._over)
        self._pairs: dict[int, Pair] = {}
        self._buffer = memoryview(bytearray(MAX_MESSAGE))

    def run(self) -> None:
        self.mover.attend(self._channel.fileno(), self._receive)
        self.mover.run()

    def _receive(self) -> None:
        for _ in range(MESSAGES):
            try:
                # Not socket.recv_fds: in Python 3.11 that does not heed its flags.
                count, ancillary, _, _ = self._channel.recvmsg_into(
                    [self._buffer], SPACE, socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            except OSError:
                count, ancillary = 0, []
            if not count:
                self.mover.stop()
                return
            message = parse(self._buffer[:count])
            if isinstance(message, Close):
                if (pair := self._pairs.get(message.number)) is not None:
                    self.mover.end(pair)
            else:
                self._begin(message, descriptors_in(ancillary))

    def _begin(self, begins: list[Begin], descriptors: list[int]) -> None:
        """Those that there were no descriptors left for are over already."""
        whole = len(descriptors) // 2
        for number in descriptors[2 * whole :]:
            os.close(number)
        if whole < len(begins):
            lost = Transferred(0, 0, "closed")
            self._tell([(each.number, lost) for each in begins[whole:]])
        for place, begin in enumerate(begins[:whole]):
            client, destination = (
                socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, number)
                for number in descriptors[2 * place : 2 * place + 2]
            )  # of either family: to say it here is cheaper than to ask, and nobody reads it
            pair = Pair(begin.number, client, destination, begin.early, begin.idle)
            self._pairs[begin.number] = pair
            self.mover.begin(pair)

    def _over(self, pairs: list[Pair]) -> None:
        told: list[Ended] = []
        for pair in pairs:
            del self._pairs[pair.number]
            told.append((pair.number, pair.transferred()))
        self._tell(told)

    def _tell(self, told: list[Ended]) -> None:
        for first in range(0, len(told), MOST_ENDED):
            try:
                self._channel.send(serialize_ended(told[first : first + MOST_ENDED]))
            except OSError:  # the server has gone; the end of the channel comes next
                return


def descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [
        number
        for level, kind, octets in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (number,) in struct.iter_unpack("=i", octets[: len(octets) // 4 * 4])
    ]


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's to heed; it ends the channel
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    drop(forbid=EXECUTING)  # sockets come by the channel
    with socket.socket(fileno=int(arguments[0])) as channel:
        Child(channel, int(arguments[1])).run()


if __name__ == "__main__":
    main(sys.argv[1:])

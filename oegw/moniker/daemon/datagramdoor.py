"""Questions over UDP: one datagram, one answer, from the address that was asked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from oegw.moniker.daemon.arrival import (
    Ancillary,
    Tunnel,
    arrival_of,
    ask_for_arrival,
    sent_from,
)
from oegw.moniker.daemon.questiondesk import QuestionDesk
from oegw.moniker.daemon.waiting import reported
from oegw.moniker.steps import HandOver, Reply, Silence, Source, Step
from oegw.moniker.wire import MAX_LINE_OCTETS
from oegw.trace import Trace

# Our choices.
DATAGRAMS_PER_TURN = 32  # before the event loop does something else
WAITING = 256  # answers that wait for a firewall or for a host behind us


class DatagramDoor:
    """Answers at sockets that are bound."""

    def __init__(self, desk: QuestionDesk, trace: Trace, tunnel: Tunnel) -> None:
        self._desk = desk
        self._trace = trace
        self._tunnel = tunnel
        self._report = reported(trace, "internal")
        self._sockets: list[socket.socket] = []
        self._waiting: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many answers wait."""
        return len(self._waiting)

    def open(self, bound: Sequence[socket.socket]) -> None:
        """Answer at bound sockets; they are ours from now on."""
        for each in bound:
            ask_for_arrival(each)
            self._sockets.append(each)
            asyncio.get_running_loop().add_reader(each.fileno(), self._read, each)

    async def close(self) -> None:
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each.fileno())
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        for each in self._sockets:
            each.close()
        self._sockets.clear()

    def _read(self, bound: socket.socket) -> None:
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                octets, ancillary, _, peer = bound.recvmsg(MAX_LINE_OCTETS + 1, 256)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error of an earlier answer: its asker is gone
            came_to = arrival_of(ancillary)
            if came_to is None or not octets or not peer[1]:
                self._trace.drop("moniker", "datagram_unaddressed")
                continue
            here, interface = came_to
            source = Source(
                ip_address(peer[0].partition("%")[0]), here, datagram=True,
                protected=self._tunnel.is_from(interface),
            )  # fmt: skip
            self._asked(bound, octets, source, peer, sent_from(here, interface))

    def _asked(
        self, bound: socket.socket, octets: bytes, source: Source, peer: tuple[str, int],
        ancillary: Ancillary,
    ) -> None:  # fmt: skip
        step: Step = self._desk.asked(octets, source, busy=len(self._waiting) >= WAITING // 2)
        match step:
            case Reply():
                self._send(bound, step.octets, peer, ancillary)
            case Silence() | HandOver():
                pass
            case _ if len(self._waiting) >= WAITING:
                self._trace.drop("moniker", "datagrams_waiting", source=source.address)
            case _:

                async def reply() -> None:
                    found = await self._desk.reply(step)
                    if isinstance(found, Reply):
                        self._send(bound, found.octets, peer, ancillary)

                task = asyncio.create_task(reply())
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)
                task.add_done_callback(self._report)

    def _send(
        self, bound: socket.socket, octets: bytes, peer: tuple[str, int], ancillary: Ancillary
    ) -> None:
        try:
            bound.sendmsg([octets], ancillary, 0, peer)
        except OSError as error:  # no buffer, or no way back: the asker asks again
            self._trace.drop("moniker", "datagram_not_sent", detail=error.strerror)

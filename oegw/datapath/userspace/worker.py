"""The process that moves packets: ``python -m oegw.datapath.userspace.worker CONTROL``.

Packets never reach the control process.  The worker lives as long as the channel (the
descriptor ``CONTROL``) to it: when the control process dies, however it dies, the channel ends, and
with the worker goes the tunnel device.  IKE on our UDP port does not come here:
see ``keyingsocket.py``.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from oegw.datapath.interface import (
    DatapathError,
    Direction,
    IPAddress,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
)
from oegw.datapath.routes import TunnelRoutes
from oegw.datapath.userspace import channel
from oegw.datapath.userspace.channel import ChannelError, Kind, Message
from oegw.datapath.userspace.engine import (
    Action,
    Deliver,
    Engine,
    EngineSettings,
    SendEsp,
    SendIcmp,
)
from oegw.datapath.userspace.esp import OutboundSa
from oegw.datapath.userspace.outside import (
    KEEPALIVE,
    NON_ESP_MARKER,
    Ancillary,
    IcmpSocket,
    OuterSocket,
    path_mtu,
    source_of,
)
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.datapath.userspace.transform import warm_up
from oegw.datapath.userspace.tun import open_tun
from oegw.intercept.interface import Marks

# Our choices.
_PACKETS_PER_TURN = 64  # of one socket, before the others have their turn
_BACKLOG = 4096  # messages to a control process that does not read; then events are lost

_Route = tuple[OuterSocket, Ancillary, tuple[str, int]]


class Worker:
    """Owns device, sockets and engine; ``run`` returns when the channel ends or CLOSE came."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        control.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._read_control)
        self._backlog: deque[bytes] = deque()
        self._running = True
        self._engine = Engine(EngineSettings(), os.urandom)
        self._tun = -1
        self._mtu = 0
        self._mark = 0
        self._port: int | None = None
        self._outside: dict[tuple[int, bool], OuterSocket] = {}
        self._icmp: dict[int, IcmpSocket] = {}
        self._routes: TunnelRoutes | None = None
        self._requests: dict[Kind, Callable[[Message], None]] = {
            Kind.START: self._start,
            Kind.INSTALL: self._install,
            Kind.REMOVE: self._remove,
            Kind.USAGE: self._report_usage,
            Kind.COUNTERS: self._report_counters,
            Kind.CLOSE: self._close,
            Kind.MOVE: self._move,
            Kind.PREFER: self._prefer,
        }

    def run(self) -> None:
        while self._running:
            deadline = self._engine.next_deadline()
            wait = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            for key, events in self._selector.select(wait):
                if key.fileobj is self._control and events & selectors.EVENT_WRITE:
                    self._flush()
                if events & selectors.EVENT_READ:
                    key.data()
            if deadline is not None:
                self._engine.expire_due(time.monotonic())
            for event in self._engine.events:
                if len(self._backlog) < _BACKLOG:
                    self._tell(Kind.EVENT, 0, channel.event_body(event))
                else:
                    self._engine.counters["events_lost"] += 1
            self._engine.events.clear()

    # Packets.

    def _read_tun(self) -> None:
        now = time.monotonic()
        for _ in range(_PACKETS_PER_TURN):
            try:
                packet = os.read(self._tun, self._mtu)
            except BlockingIOError:
                return
            if not self._execute(self._engine.outbound(packet, now), now):
                # The path got narrower: now the engine knows, and tells the sender.
                self._execute(self._engine.outbound(packet, now), now)

    def _reader(self, outer: OuterSocket) -> Callable[[], None]:
        deliver = self._udp_received if outer.encapsulated else self._esp_received

        def read() -> None:
            for _ in range(_PACKETS_PER_TURN):
                try:
                    outer.receive(deliver)
                except BlockingIOError:
                    return
                except OSError:
                    self._engine.counters["drop_in_socket"] += 1

        return read

    def _esp_received(
        self, payload: memoryview, source: bytes, port: int, destination: bytes, traffic_class: int
    ) -> None:
        now = time.monotonic()
        actions = self._engine.inbound(payload, source, destination, traffic_class, None, now)
        self._execute(actions, now)

    def _udp_received(
        self, payload: memoryview, source: bytes, port: int, destination: bytes, traffic_class: int
    ) -> None:
        if payload == KEEPALIVE:
            # It says nothing of any SA (RFC 3948 section 4): whoever likes may send it.
            self._engine.counters["keepalives"] += 1
            return
        if payload[:4] == NON_ESP_MARKER:  # before the control process had its socket
            self._engine.counters["drop_in_keying"] += 1
            return
        now = time.monotonic()
        actions = self._engine.inbound(payload, source, destination, traffic_class, port, now)
        self._execute(actions, now)

    def _execute(self, actions: list[Action], now: float) -> bool:
        """Do what the engine says; False if a packet did not fit the path, now measured."""
        fits = True
        for action in actions:
            if isinstance(action, SendEsp):
                fits = self._send(action, now)
            elif isinstance(action, Deliver):
                try:
                    os.write(self._tun, action.packet)
                except OSError:
                    self._engine.counters["drop_in_device"] += 1
            elif isinstance(action, SendIcmp):
                try:
                    self._icmp[action.version].send(action.destination, action.message)
                except OSError:
                    self._engine.counters["drop_icmp"] += 1
            else:
                self._measure(action.sa.sa)
        return fits

    def _send(self, send: SendEsp, now: float) -> bool:
        outer, from_, to = send.sa.way or self._way_of(send.sa)
        try:
            outer.send(send.payload, from_, to, send.traffic_class, send.dont_fragment)
        except BlockingIOError:
            self._engine.counters["drop_out_queue"] += 1
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._engine.counters["drop_out_path_mtu"] += 1
                before = send.sa.mtu
                self._measure(send.sa.sa)
                return send.sa.mtu >= before
            self._engine.counters["drop_out_socket"] += 1
        return True

    def _way_of(self, sa: OutboundSa) -> _Route:
        encapsulation = sa.sa.encapsulation
        outer = self._outside[sa.sa.destination.version, encapsulation is not None]
        port = encapsulation.destination_port if encapsulation else 0
        way = outer, source_of(sa.sa.source), (str(sa.sa.destination), port)
        sa.way = way
        return way

    def _measure(self, sa: SecurityAssociation) -> None:
        self._measure_between(sa.source, sa.destination)

    def _measure_between(self, source: IPAddress, destination: IPAddress) -> None:
        mtu = path_mtu(source, destination, self._mark)
        self._engine.set_path_mtu(destination, mtu or self._mtu, time.monotonic())

    # Control.

    def _read_control(self) -> None:
        try:
            octets = self._control.recv(channel.LARGEST)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._running = False
            return
        try:
            message = Message.parse(octets)
        except ChannelError as error:
            self._tell(Kind.REFUSAL, 0, f"the worker received {error}")
            return
        request = self._requests.get(message.kind)
        try:
            if request is None:
                raise DatapathError("the worker received an answer")
            request(message)
        except DatapathError as error:
            self._tell(Kind.REFUSAL, message.number, str(error))
        except (ValueError, KeyError, IndexError, TypeError):
            # No text of the error: it may quote a key.
            self._tell(Kind.REFUSAL, message.number, "a request that cannot be read")

    def _start(self, message: Message) -> None:
        if self._tun >= 0:
            raise DatapathError("the worker runs already")
        settings = channel.settings_of(message.body)
        try:
            self._open(settings)
        except DatapathError:
            self._shut()
            raise
        self._tell(Kind.ANSWER, message.number, sorted(self._icmp))

    def _open(self, settings: UserspaceSettings) -> None:
        marks = Marks(settings.mark_mask)
        self._mark = marks.own
        self._mtu = settings.mtu
        self._port = settings.encapsulation_port
        self._engine = Engine(EngineSettings(settings.mtu, settings.dont_fragment), os.urandom)
        [self._tun] = open_tun(settings.tunnel_interface, settings.mtu).descriptors
        ports = (None, settings.encapsulation_port) if settings.encapsulation_port else (None,)
        for version in (4, 6) if _has_ipv6() else (4,):
            self._icmp[version] = IcmpSocket(version, marks.own)
            for port in ports:
                outer = OuterSocket(version, port, marks.own)
                self._outside[version, outer.encapsulated] = outer
                self._selector.register(outer.socket, selectors.EVENT_READ, self._reader(outer))
        self._selector.register(self._tun, selectors.EVENT_READ, self._read_tun)
        routes = TunnelRoutes(settings)
        routes.install()
        self._routes = routes

    def _install(self, message: Message) -> None:
        sa = channel.sa_of(message.body)
        self._check_way(sa.key, sa.encapsulation)
        self._engine.install(sa, time.monotonic())
        if sa.direction is Direction.OUTBOUND:
            self._measure(sa)
        self._tell(Kind.ANSWER, message.number, None)

    def _move(self, message: Message) -> None:
        key, source, destination, encapsulation = channel.move_of(message.body)
        self._check_way(replace(key, destination=destination), encapsulation)
        moved = self._engine.move(key, source, destination, encapsulation)
        if moved.direction is Direction.OUTBOUND:
            self._measure_between(source, destination)
        self._tell(Kind.ANSWER, message.number, channel.key_body(moved))

    def _prefer(self, message: Message) -> None:
        self._engine.prefer(channel.key_of(message.body))
        self._tell(Kind.ANSWER, message.number, None)

    def _check_way(self, key: SaKey, encapsulation: UdpEncapsulation | None) -> None:
        """Raises DatapathError if no socket of ours sends or receives so."""
        if (key.destination.version, encapsulation is not None) not in self._outside:
            raise DatapathError(f"SA {key.spi:#010x}: no socket for its outer packets")
        if encapsulation is None:
            return
        outbound = key.direction is Direction.OUTBOUND
        port = encapsulation.source_port if outbound else encapsulation.destination_port
        if port != self._port:
            raise DatapathError(f"SA {key.spi:#010x}: our own port {port}, not {self._port}")

    def _remove(self, message: Message) -> None:
        key = channel.key_of(message.body)
        usage = self._engine.remove(key)
        self._tell(Kind.ANSWER, message.number, usage and channel.usage_body(usage))

    def _report_usage(self, message: Message) -> None:
        items = [
            [channel.key_body(key), channel.usage_body(usage)]
            for key, usage in self._engine.usage().items()
        ]
        while len(items) > channel.USAGES_PER_MESSAGE:
            self._tell(Kind.PARTIAL, message.number, items[: channel.USAGES_PER_MESSAGE])
            del items[: channel.USAGES_PER_MESSAGE]
        self._tell(Kind.ANSWER, message.number, items)

    def _report_counters(self, message: Message) -> None:
        self._tell(Kind.ANSWER, message.number, self._engine.counters)

    def _close(self, message: Message) -> None:
        if self._routes is not None:
            self._routes.remove()
        self._shut()
        self._tell(Kind.ANSWER, message.number, None)
        self._running = False

    def _shut(self) -> None:
        """Close device and sockets; the control channel stays."""
        if self._tun >= 0:
            if self._tun in self._selector.get_map():
                self._selector.unregister(self._tun)
            os.close(self._tun)
            self._tun = -1
        for outer in self._outside.values():
            self._selector.unregister(outer.socket)
            outer.socket.close()
        self._outside.clear()
        for icmp in self._icmp.values():
            icmp.socket.close()
        self._icmp.clear()

    def _tell(self, kind: Kind, number: int, body: Any) -> None:
        self._backlog.append(Message(kind, number, body).serialize())
        self._flush()

    def _flush(self) -> None:
        """Send what the channel takes now, and the rest when it is writable."""
        try:
            while self._backlog:
                self._control.send(self._backlog[0])
                self._backlog.popleft()
            wanted = selectors.EVENT_READ
        except BlockingIOError:
            wanted = selectors.EVENT_READ | selectors.EVENT_WRITE
        except OSError:
            self._running = False  # the control process is gone
            return
        if self._selector.get_key(self._control).events != wanted:
            self._selector.modify(self._control, wanted, self._read_control)


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> None:
    # A signal to the whole process group is the control process's to act on.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    warm_up(os.urandom)
    with socket.socket(fileno=int(arguments[0])) as control:
        Worker(control).run()


if __name__ == "__main__":
    main(sys.argv[1:])

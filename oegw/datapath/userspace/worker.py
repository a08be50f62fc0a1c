"""What `sealing.py` and `opening.py` share: the process, its channel and its loop.

A worker lives as long as the channel to the control process: when that dies, however it dies, the
channel ends, and with the workers go the last descriptors of the tunnel device.  IKE on our UDP
port does not come here: see ``keyingsocket.py``.

Once it has its descriptors, and before it is told of any SA, a worker gives up all rights: what it
reads, strangers wrote.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from oegw.datapath.interface import (
    DatapathError,
    DatapathEvent,
    IPAddress,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
)
from oegw.datapath.userspace import channel
from oegw.datapath.userspace.channel import ChannelError, Kind, Message
from oegw.datapath.userspace.core.choice import Libraries
from oegw.datapath.userspace.counters import CounterPage, page_of
from oegw.datapath.userspace.equipment import Equipment
from oegw.datapath.userspace.offloads import Offload
from oegw.datapath.userspace.record import Record
from oegw.datapath.userspace.state import Chunks
from oegw.datapath.userspace.transform import warm_up
from oegw.powers.dropping import PowerError, die_with_parent, drop, user_of
from oegw.powers.systemcalls import EXECUTING, TAKING

# Our choices.
_READY_AT_ONCE = 8  # descriptors: there are fewer, but for room that is made each time
_BACKLOG = 4096  # messages to a control process that does not read; then events are lost


class CannotGoOnError(Exception):
    """This worker cannot go on, and a successor could not either; the message says why."""


class Duty(Protocol):
    """What a worker does: seal, or open.  Its SAs are those that it was told of."""

    core: tuple[str, str, Libraries]  # which runs, why, and by which libraries
    turns: dict[int, Callable[[], None]]  # what to call while a descriptor is readable
    loop: Callable[[int], None] | None
    """Called with an epoll: moves packets by itself, and returns when a descriptor of others is
    ready, or there is something to take out.  None: ``turns`` do it all."""
    attended: tuple[int, ...]  # descriptors that are the loop's
    events: list[DatapathEvent]  # to be taken out
    measured: list[tuple[IPAddress, int]]  # path MTUs, the same
    lost: list[Offload]  # the same: they worked until now

    def install(self, sa: SecurityAssociation, record: Record) -> None: ...
    def remove(self, key: SaKey) -> None: ...
    def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> None: ...
    def prefer(self, key: SaKey) -> None: ...
    def set_path_mtu(self, peer: IPAddress, mtu: int) -> None: ...
    def set_home(self, key: SaKey, home: int | None) -> None:
        """Which opening worker has an inbound SA: another; this one will, or none."""

    def begin(self) -> None:
        """All SAs are told."""


MakesDuty = Callable[[Equipment, CounterPage], Duty]


class Worker:
    """``run`` returns when the channel ends.  Nothing moves before START and BEGIN."""

    def __init__(self, control: socket.socket, make: MakesDuty) -> None:
        self._control = control
        control.setblocking(False)
        self._make = make
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._backlog: deque[bytes] = deque()
        self._flushing = False
        self._running = True
        self._duty: Duty | None = None
        self._counters: CounterPage | None = None
        self._memory: Chunks | None = None
        self._shared = False
        self._loop: Callable[[int], None] | None = None  # once it may move packets
        self._requests: dict[Kind, Callable[[Duty, Any], None]] = {
            Kind.INSTALL: self._install,
            Kind.REMOVE: lambda duty, body: duty.remove(channel.key_of(body)),
            Kind.MOVE: lambda duty, body: duty.move(*channel.move_of(body)),
            Kind.PREFER: lambda duty, body: duty.prefer(channel.key_of(body)),
            Kind.PATH_MTU: lambda duty, body: duty.set_path_mtu(*channel.path_mtu_of(body)),
            Kind.HOME: lambda duty, body: duty.set_home(*channel.home_of(body)),
            Kind.BEGIN: self._begin,
            Kind.PULSE: lambda duty, body: None,
        }

    def run(self) -> None:
        control = self._control.fileno()
        turns: dict[int, Callable[[], None]] = {}
        while self._running:
            wait = -1
            if self._loop is not None:
                self._loop(self._poll.fileno())
                wait = 0
            for descriptor, events in self._poll.poll(wait, _READY_AT_ONCE):
                if descriptor != control:
                    if descriptor in turns:
                        turns[descriptor]()
                    continue
                if events & select.EPOLLOUT:
                    self._flush()
                if events & ~select.EPOLLOUT:
                    self._read_control()
            duty = self._duty
            if duty is not None:
                turns = duty.turns
                if duty.events or duty.measured or duty.lost:
                    self._report(duty)

    def fail(self, reason: str) -> None:
        """Tell the control process that neither this worker nor a successor can go on."""
        self._tell(Kind.REFUSAL, 0, reason)

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
        try:
            answer = self._carry_out(message)
        except DatapathError as error:
            self._tell(Kind.REFUSAL, message.number, str(error))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            # No text of the error: it may quote a key.
            self._tell(Kind.REFUSAL, message.number, "a request that cannot be read")
        else:
            if message.number:
                self._tell(Kind.ANSWER, message.number, answer)

    def _carry_out(self, message: Message) -> Any:
        if message.kind is Kind.START:
            return self._start(Equipment.of(message.body))
        request = self._requests.get(message.kind)
        if request is None:
            raise DatapathError("the worker received an answer")
        if self._duty is None:
            raise DatapathError("the worker was not started")
        return request(self._duty, message.body)

    def _start(self, equipment: Equipment) -> list[Any]:
        if self._duty is not None:
            raise DatapathError("the worker runs already")
        counters = page_of(equipment.counters, equipment.page)
        self._duty = self._make(equipment, counters)
        self._counters = counters
        self._memory = Chunks(equipment.memory)
        self._shared = equipment.shared
        return list(self._duty.core)

    def _install(self, duty: Duty, body: Any) -> None:
        assert self._memory is not None
        sa, offset = channel.install_of(body)
        duty.install(sa, self._memory.record(offset, self._shared))

    def _begin(self, duty: Duty, body: Any) -> None:
        duty.begin()
        for descriptor in (*duty.turns, *duty.attended):
            self._poll.register(descriptor, select.EPOLLIN)
        self._loop = duty.loop

    def _report(self, duty: Duty) -> None:
        """Events may be lost if the control process does not read; a path is measured again."""
        bodies = [(Kind.EVENT, channel.event_body(event)) for event in duty.events]
        bodies += [(Kind.PATH_MTU, channel.path_mtu_body(*path)) for path in duty.measured]
        bodies += [(Kind.WITHOUT, channel.offload_body(offload)) for offload in duty.lost]
        duty.events.clear()
        duty.measured.clear()
        duty.lost.clear()
        for kind, body in bodies:
            if len(self._backlog) < _BACKLOG:
                self._tell(kind, 0, body)
            elif self._counters is not None:
                self._counters["events_lost"] += 1

    def _tell(self, kind: Kind, number: int, body: Any) -> None:
        self._backlog.append(Message(kind, number, body).serialize())
        self._flush()

    def _flush(self) -> None:
        """Send what the channel takes now, and the rest when it is writable."""
        try:
            while self._backlog:
                self._control.send(self._backlog[0])
                self._backlog.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._running = False  # the control process is gone
            return
        if self._flushing != bool(self._backlog):
            self._flushing = bool(self._backlog)
            wanted = select.EPOLLIN | select.EPOLLOUT if self._flushing else select.EPOLLIN
            self._poll.modify(self._control, wanted)


def run(arguments: list[str], make: MakesDuty) -> None:
    """The whole process: ``arguments`` are the number of the channel's descriptor and the user that
    it is to become, as `dropping.user_of` reads it."""
    user = user_of(arguments[1])

    def made(equipment: Equipment, counters: CounterPage) -> Duty:
        duty = make(equipment, counters)
        try:
            drop(user, end_with_parent=True, forbid=EXECUTING | TAKING)
        except PowerError as error:
            raise DatapathError(str(error)) from None
        return duty

    # A signal to the whole process group is the control process's to act on.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # One that hangs does not see the channel's end, and would keep the tunnel device.
    die_with_parent()
    warm_up(os.urandom)
    with socket.socket(fileno=int(arguments[0])) as control:
        worker = Worker(control, made)
        try:
            worker.run()
        except CannotGoOnError as failure:
            worker.fail(str(failure))

"""A kernel that refuses: which request, why, and nothing half-installed is left."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from oegw.datapath.interface import (
    DatapathError,
    DatapathEvent,
    SaExpired,
    UdpEncapsulation,
)
from oegw.datapath.xfrm import mover, netlink
from oegw.datapath.xfrm.datapath import XfrmDatapath
from oegw.datapath.xfrm.messages import HEADER, Content, Flag, Frame, MessageType, frames, serialize
from oegw.datapath.xfrm.netlink import Netlink, XfrmError
from oegw.datapath.xfrm.policy import Policy, PolicyName
from oegw.datapath.xfrm.probe import shortcoming
from oegw.datapath.xfrm.reports import Expired
from oegw.datapath.xfrm.settings import XfrmSettings
from oegw.datapath.xfrm.state import Consumed, State, StateName
from tests.support.datapath_sas import GATEWAY_A4, arriving, make_sa

REFUSALS = [
    errno.ENOPROTOOPT, errno.EEXIST, errno.ENOBUFS, errno.EPERM, errno.ENOSYS, errno.EINVAL,
    errno.EPROTONOSUPPORT, errno.ENOMEM,
]  # fmt: skip
ids = errno.errorcode.get


class Kernel:
    """States and policies by name, as the kernel keeps them; refuses what it is told to."""

    def __init__(self) -> None:
        self.states: dict[StateName, State] = {}
        self.policies: dict[PolicyName, Policy] = {}
        self.refusals: dict[MessageType, list[int]] = {}
        self.asked: list[MessageType] = []

    def ask(self, kind: MessageType, content: Content, flags: int = 0) -> Frame | None:
        self.asked.append(kind)
        waiting = self.refusals.get(kind)
        if waiting and (number := waiting.pop(0)):
            raise XfrmError(netlink.described(kind, content), number)
        if isinstance(content, State):
            if kind is MessageType.NEWSA and content.name in self.states:
                raise XfrmError(netlink.described(kind, content), errno.EEXIST)
            self.states[content.name] = content
        elif isinstance(content, Policy):
            self.policies[content.name] = content
        elif isinstance(content, StateName):
            if content not in self.states:
                raise XfrmError(netlink.described(kind, content), errno.ESRCH)
            if kind is MessageType.GETSA:
                [frame] = frames(serialize(MessageType.NEWSA, 0, 1, self.states[content]))
                return frame
            del self.states[content]
        elif isinstance(content, PolicyName):
            if content not in self.policies:
                raise XfrmError(netlink.described(kind, content), errno.ENOENT)
            del self.policies[content]
        return None

    async def dump(self, kind: MessageType) -> AsyncIterator[Frame]:
        for state in list(self.states.values()):
            [frame] = frames(serialize(MessageType.NEWSA, 0, 1, state))
            yield frame

    def close(self) -> None: ...


Play = Callable[[XfrmDatapath, Kernel, list[DatapathEvent]], Awaitable[None]]


def on_kernel(play: Play) -> None:
    async def started() -> None:
        kernel = Kernel()
        events: list[DatapathEvent] = []
        datapath = XfrmDatapath(XfrmSettings())
        datapath._kernel, datapath._listener = kernel, events.append
        await play(datapath, kernel, events)

    asyncio.run(started())


@pytest.mark.parametrize("number", REFUSALS, ids=ids)
@pytest.mark.parametrize("kind", [MessageType.NEWSA, MessageType.UPDPOLICY], ids=lambda k: k.name)
def test_install(kind: MessageType, number: int) -> None:
    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        kernel.refusals[kind] = [number]
        with pytest.raises(DatapathError) as error:
            await datapath.install(make_sa())
        text = str(error.value)
        assert kind.name in text
        assert os.strerror(number) in text
        assert errno.errorcode[number] in text
        assert not kernel.states
        assert not kernel.policies
        assert await datapath.usage() == {}
        await datapath.install(make_sa())  # nothing is in the way
        assert len(kernel.states) == len(kernel.policies) == 1

    on_kernel(play)


@pytest.mark.parametrize("number", REFUSALS, ids=ids)
def test_refused_successor_leaves_the_one_before(number: int) -> None:
    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        await datapath.install(make_sa())
        before = dict(kernel.states), dict(kernel.policies)
        kernel.refusals[MessageType.UPDPOLICY] = [number]
        with pytest.raises(DatapathError, match="UPDPOLICY"):
            await datapath.install(make_sa(spi=0x2000))
        assert (kernel.states, kernel.policies) == before

    on_kernel(play)


@pytest.mark.parametrize("number", REFUSALS, ids=ids)
def test_a_refused_preference_leaves_the_sender_of_before(number: int) -> None:
    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        one, newer = make_sa(), make_sa(spi=0x2000, destination="192.1.1.6")
        await datapath.install(one)
        await datapath.install(newer)
        before = dict(kernel.policies)
        kernel.refusals[MessageType.UPDPOLICY] = [number]
        with pytest.raises(DatapathError, match="UPDPOLICY"):
            await datapath.prefer(one.key)
        assert kernel.policies == before
        # The refusal is forgotten: what removes a third brings back the sender of before.
        third = make_sa(spi=0x3000)
        await datapath.install(third)
        await datapath.remove(third.key)
        assert kernel.policies == before
        await datapath.prefer(one.key)
        [policy] = kernel.policies.values()
        assert policy.template is not None
        assert policy.template.spi == one.spi

    on_kernel(play)


@pytest.mark.parametrize("number", REFUSALS, ids=ids)
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (MessageType.NEWSA, 0),
        (MessageType.UPDPOLICY, 0),
        (MessageType.GETSA, 0),
    ],
    ids=lambda each: getattr(each, "name", str(each)),
)
def test_move_to_another_address(kind: MessageType, place: int, number: int) -> None:
    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        sa = make_sa()
        await datapath.install(sa)
        before = dict(kernel.states), dict(kernel.policies)
        kernel.refusals[kind] = [0] * place + [number]
        with pytest.raises(DatapathError, match=errno.errorcode[number]):
            await datapath.move(sa.key, sa.source, ip_address("192.1.1.9"), None)
        assert (kernel.states, kernel.policies) == before
        assert list(await datapath.usage()) == [sa.key]

    on_kernel(play)


@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("kind", [MessageType.NEWSA, MessageType.DELSA], ids=lambda k: k.name)
def test_move_in_place(monkeypatch: pytest.MonkeyPatch, kind: MessageType, direction: str) -> None:
    class Silent:
        def __enter__(self) -> Silent:
            return self

        def __exit__(self, *_: object) -> None: ...

        def recv(self, size: int) -> bytes:
            raise BlockingIOError

    monkeypatch.setattr(mover, "open_netlink", lambda *groups: Silent())

    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        sa = make_sa() if direction == "out" else arriving(make_sa())
        await datapath.install(sa)
        name = StateName(sa.destination, sa.spi)
        kernel.states[name] = replace(kernel.states[name], consumed=Consumed(100, 1, 2, 3))
        before = dict(kernel.policies)
        kernel.refusals[kind] = [errno.ENOMEM]
        with pytest.raises(DatapathError, match="ENOMEM"):
            await datapath.move(sa.key, ip_address("192.1.1.9"), sa.destination, None)
        assert kernel.states[name].source == sa.source
        assert kernel.states[name].consumed.bytes == 100
        assert kernel.policies == before
        # And then it goes, counters and all.
        await datapath.move(sa.key, ip_address("192.1.1.9"), sa.destination, None)
        assert kernel.states[name].source == ip_address("192.1.1.9")
        assert kernel.states[name].consumed.bytes == 100

    on_kernel(play)


def test_removal_of_what_is_gone_tells_the_last_counters() -> None:
    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        sa = make_sa()
        await datapath.install(sa)
        name = StateName(sa.destination, sa.spi)
        gone = replace(kernel.states.pop(name), consumed=Consumed(840, 10, 5, 6))
        [frame] = frames(serialize(MessageType.EXPIRE, 0, 0, Expired(gone, True)))
        datapath._heard(frame)
        datapath._heard(frame)
        assert events == [SaExpired(sa.key, hard=True)]
        [policy] = kernel.policies.values()
        assert policy.template is None  # blocked: what was for this tunnel goes nowhere else
        usage = await datapath.remove(sa.key)
        assert usage is not None
        assert (usage.packets, usage.bytes) == (10, 840)
        assert not kernel.policies

    on_kernel(play)


def test_reports_that_were_missed_are_made_up_for() -> None:
    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        soft, hard, fine = (make_sa(spi=0x1000 + n, soft_bytes=500) for n in range(3))
        for sa in (soft, hard, fine):
            await datapath.install(sa)
        del kernel.states[StateName(hard.destination, hard.spi)]
        name = StateName(soft.destination, soft.spi)
        kernel.states[name] = replace(kernel.states[name], consumed=Consumed(501, 2, 3, 4))
        datapath._missed()
        datapath._missed()
        assert datapath._resync is not None
        await datapath._resync
        assert set(events) == {SaExpired(soft.key, hard=False), SaExpired(hard.key, hard=True)}
        await datapath.usage()
        assert len(events) == 2
        assert (await datapath.counters())["events_lost"] == 2

    on_kernel(play)


def test_others_reports_are_none_of_ours() -> None:
    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        sa = make_sa()
        await datapath.install(sa)
        theirs = replace(next(iter(kernel.states.values())), interface_id=7)
        [frame] = frames(serialize(MessageType.EXPIRE, 0, 0, Expired(theirs, True)))
        datapath._heard(frame)
        assert events == []

    on_kernel(play)


@pytest.mark.parametrize("number", REFUSALS, ids=ids)
def test_probe(number: int) -> None:
    kernel = Kernel()
    kernel.refusals[MessageType.NEWSA] = [0, 0, 0, number]
    reason = shortcoming(XfrmSettings(), lambda: kernel, lambda settings: None)
    assert not kernel.states
    if number == errno.EEXIST:  # it is there, from a probe that was killed: so the kernel can
        assert reason is None
        return
    assert reason is not None
    assert "aes-cbc and hmac-sha2-256-128" in reason
    assert errno.errorcode[number] in reason


def test_probe_of_the_rest() -> None:
    kernel = Kernel()
    kernel.refusals[MessageType.UPDPOLICY] = [errno.EPERM]
    assert "policies" in str(shortcoming(XfrmSettings(), lambda: kernel, lambda settings: None))
    reason = shortcoming(XfrmSettings(), lambda: kernel, lambda settings: "no device")
    assert reason == "no device"

    def refuse() -> Kernel:
        raise XfrmError("a NETLINK_XFRM socket", errno.EPROTONOSUPPORT)

    assert "EPROTONOSUPPORT" in str(shortcoming(XfrmSettings(), refuse))
    assert not kernel.states
    assert not kernel.policies


class Wire:
    """The socket of `Netlink`: answers what it is told to, with the number of the request."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self._answers = list(answers)
        self._number = 0

    def send(self, octets: bytes) -> None:
        self._number = HEADER.unpack_from(octets)[3]

    def recv(self, size: int) -> bytes:
        if not self._answers:
            raise TimeoutError
        kind, body = self._answers.pop(0)
        return HEADER.pack(HEADER.size + len(body), kind, 0x100, self._number, 0) + body


def wired(*answers: tuple[int, bytes]) -> Netlink:
    kernel = Netlink.__new__(Netlink)
    kernel._numbers = iter(range(1, 100))  # type: ignore[assignment]
    kernel._socket = Wire(*answers)  # type: ignore[assignment]
    return kernel


STATE = State(ip_address(GATEWAY_A4), ip_address(GATEWAY_A4), 0x1234, None)
REQUEST = bytes(HEADER.size)


@pytest.mark.parametrize("number", REFUSALS, ids=ids)
def test_the_kernels_answer_is_the_error(number: int) -> None:
    kernel = wired((MessageType.ERROR, struct.pack("=i", -number) + REQUEST))
    with pytest.raises(XfrmError) as error:
        kernel.ask(MessageType.NEWSA, STATE, Flag.CREATE)
    assert error.value.number == number
    name = errno.errorcode[number]
    assert str(error.value) == (
        f"NEWSA of SPI 0x00001234 to {GATEWAY_A4}: {os.strerror(number)} ({name})"
    )


def test_answers_of_a_socket() -> None:
    accepted = (MessageType.ERROR, struct.pack("=i", 0) + REQUEST)
    assert wired(accepted).ask(MessageType.NEWSA, STATE) is None
    found = (MessageType.NEWSA, serialize(MessageType.NEWSA, 0, 0, STATE)[HEADER.size :])
    frame = wired(found, accepted).ask(MessageType.GETSA, STATE.name)
    assert frame is not None
    answer: Any = frame.content()
    assert answer.name == STATE.name
    with pytest.raises(XfrmError, match="ETIMEDOUT"):
        wired().ask(MessageType.NEWSA, STATE)


def test_encapsulation_that_this_datapath_has_no_port_for() -> None:
    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        with pytest.raises(DatapathError, match="source port 4501"):
            await datapath.install(make_sa(encapsulation=UdpEncapsulation(4501, 4500)))
        assert kernel.asked == []

    on_kernel(play)


@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize(
    "kind",
    [MessageType.GETSA, MessageType.DELSA, MessageType.UPDPOLICY, MessageType.DELPOLICY],
    ids=lambda k: k.name,
)
def test_refused_removal_is_said_and_can_be_asked_for_again(
    kind: MessageType, direction: str
) -> None:
    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        sa = make_sa() if direction == "out" else arriving(make_sa())
        name = StateName(sa.destination, sa.spi)
        await datapath.install(sa)
        if kind is MessageType.UPDPOLICY:
            await datapath.install(make_sa(spi=0x2000))
        kernel.asked.clear()
        kernel.refusals[kind] = [errno.ENOBUFS]
        if kind is MessageType.GETSA or (
            direction == "in" and kind in (MessageType.UPDPOLICY, MessageType.DELPOLICY)
        ):
            await datapath.remove(sa.key)
        else:
            with pytest.raises(DatapathError, match=f"{kind.name}.*ENOBUFS"):
                await datapath.remove(sa.key)
            assert (name in kernel.states) == (kind is MessageType.DELSA)
            await datapath.remove(sa.key)
        assert name not in kernel.states
        assert name not in datapath._installed
        assert all(p.template and p.template.spi == 0x2000 for p in kernel.policies.values())

    on_kernel(play)


def test_sa_that_moves_while_all_are_read_has_not_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel makes it anew, at the head of a list that the dump walks to its end."""

    class Silent:
        def __enter__(self) -> Silent:
            return self

        def __exit__(self, *_: object) -> None: ...

        def recv(self, size: int) -> bytes:
            raise BlockingIOError

    monkeypatch.setattr(mover, "open_netlink", lambda *groups: Silent())

    async def play(datapath: XfrmDatapath, kernel: Kernel, events: list[DatapathEvent]) -> None:
        sa = arriving(make_sa())
        await datapath.install(sa)

        async def dump(kind: MessageType) -> AsyncIterator[Frame]:
            await datapath.move(sa.key, ip_address("192.1.1.9"), sa.destination, None)
            for frame in ():
                yield frame

        monkeypatch.setattr(kernel, "dump", dump)
        assert list(await datapath.usage()) == [sa.key]
        assert not events

    on_kernel(play)

"""A question whose answer needs a port to be opened: when that works, and when not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from oegw.moniker.answering import Answering
from oegw.moniker.cookies import Cookies
from oegw.moniker.daemon.ports import Ports
from oegw.moniker.daemon.questiondesk import QuestionDesk
from oegw.moniker.interface import Lease, LeaseRefused, Opening, Owner, Place, Service
from oegw.moniker.names import Version
from oegw.moniker.registry import Registry
from oegw.moniker.settings import HostSettings, MonikerSettings
from oegw.moniker.steps import AskHost, OpenPort, Reply, Source, Step
from oegw.moniker.wire import Answer, Code, Refusal
from oegw.trace import JsonTrace
from tests.support.moniker_daemon import NONCE, question

CLIENT, HOST, INNER = (ip_address(a) for a in ("192.2.0.1", "192.1.0.9", "10.0.0.7"))
SERVICE = Service("starwars", Version.parse("1"), "tcp", 4000, "46")


class Firewall:
    """An opener that opens for 9 seconds, and does something before if it is told to."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self.ended: list[int] = []
        self.before: Callable[[], None] = lambda: None

    async def guard(self, place: Place) -> None: ...

    async def open(self, lease: Lease) -> Opening:
        self.before()
        self.leases.append(lease)
        return Opening(lease.port, 9)

    async def end(self, place: Place) -> None:
        self.ended.append(place.port)


class Directory:
    """A site directory whose host says ``says``."""

    def __init__(self, says: tuple[Answer | Refusal, Opening | None] | LeaseRefused) -> None:
        self.says = says

    async def ask(self, step: AskHost, seconds: int) -> tuple[Answer | Refusal, Opening | None]:
        if isinstance(self.says, LeaseRefused):
            raise self.says
        return self.says


class Desk:
    def __init__(self, directory: Directory | None = None) -> None:
        host = HostSettings("inner", (INNER,), None, ("alice",))
        settings = MonikerSettings(lease=60, hosts=(host,))
        self.firewall = Firewall()
        self.registry = Registry()
        self.closed: set[int] = set()  # entries whose sockets are closed
        self.ports = Ports(self.firewall)
        self.trace = JsonTrace(None, lambda: 0.0)
        self.lines: list[dict[str, object]] = []
        self.trace.listeners.append(lambda line: self.lines.append(dict(line)))
        self.entry = self.registry.register(SERVICE, Owner(1, 0, 0, "root"), 0.0)
        answering = Answering(
            settings, self.registry, Cookies(bytes(32)), key=None, random=bytes,
            choose=lambda below: 0, leases=True,
        )  # fmt: skip
        self.desk = QuestionDesk(
            answering, self.given_back, self.ports, self.firewall, directory, self.trace,
            clock=lambda: 0.0, lease=settings.lease,
        )  # fmt: skip

    def given_back(self, number: int) -> bool:
        if number in self.closed:
            self.registry.remove(number)
        return self.registry.entry(number) is None

    def asked(self, line: str) -> Step:
        source = Source(CLIENT, HOST)
        return self.desk.asked(line.encode(), source, busy=False)

    def answer(self, line: str) -> str:
        """What a client is told in the end, without protocol and nonce."""

        async def scenario() -> str:
            step = self.asked(line)
            if isinstance(step, OpenPort | AskHost):
                found = await self.desk.reply(step)
                await self.ports.close()
            else:
                found = step
            assert isinstance(found, Reply)
            return found.octets.decode().replace(f" {NONCE}", "", 1).strip().removeprefix("MON/1 ")

        return asyncio.run(scenario())


def test_the_answer_waits_for_the_port_and_names_its_time() -> None:
    desk = Desk()
    assert desk.answer(question("starwars")) == "+ 4000 tcp 1 46 9"
    assert desk.firewall.leases == [Lease(CLIENT, HOST, "tcp", 4000, 60, "starwars")]


def test_the_trace_names_the_service() -> None:
    """MK-32."""
    desk = Desk()
    desk.answer(question("starwars"))
    told = next(line for line in desk.lines if line["event"] == "told")
    assert (told["service"], told["client"], told["port"]) == ("starwars", CLIENT, 4000)
    assert desk.desk.counters == {"moniker_open": 1, "moniker_answered": 1}


def test_lines_of_what_was_told_have_a_bound_and_are_counted_beyond_it() -> None:
    desk = Desk()

    async def scenario() -> None:
        for _ in range(150):
            step = desk.asked(question("starwars"))
            assert isinstance(step, OpenPort)
            await desk.desk.reply(step)

    asyncio.run(scenario())
    written = sum(line["event"] == "told" for line in desk.lines)
    assert written == 100
    assert desk.trace.counters["moniker.drop.told_unwritten"] == 50


def test_a_port_that_is_not_opened_is_not_told() -> None:
    desk = Desk()

    def refuse() -> None:
        raise LeaseRefused("gateway", "the gateway is away")

    desk.firewall.before = refuse
    assert desk.answer(question("starwars")) == "- gateway the gateway is away"
    assert desk.trace.counters["moniker.drop.moniker_gateway"] == 1
    assert not any(line["event"] == "told" for line in desk.lines)


def test_a_service_that_ends_while_its_port_is_opened_leaves_no_hole() -> None:
    desk = Desk()
    desk.firewall.before = lambda: desk.registry.remove(desk.entry.number) and None
    assert desk.answer(question("starwars")) == "- unknown no such service"
    assert desk.firewall.ended == [4000]


def test_a_port_that_was_given_back_is_not_told_and_another_instance_is() -> None:
    """MK-30: it may be another's by now."""
    desk = Desk()
    desk.closed.add(desk.entry.number)
    assert desk.answer(question("starwars")) == "- unknown no such service"
    assert desk.firewall.leases == []
    desk = Desk()
    other = replace(SERVICE, port=4001)
    desk.registry.register(other, Owner(2, 0, 0, "root"), 0.0)
    desk.closed.add(desk.entry.number)
    assert desk.answer(question("starwars")) == "+ 4001 tcp 1 46 9"


def test_a_port_that_is_given_back_while_it_is_opened_is_closed_again() -> None:
    desk = Desk()
    desk.firewall.before = lambda: desk.closed.add(desk.entry.number)
    assert desk.answer(question("starwars")) == "- unknown no such service"
    assert desk.firewall.ended == [4000]


def test_a_host_behind_us_answers_for_its_namespace() -> None:
    """MK-14."""
    said = Answer("f" * 16, 7000, "tcp", Version.parse("3"), "4", 30)
    desk = Desk(Directory((said, Opening(5555, 20))))
    assert desk.answer(question("http", namespace="alice")) == "+ 5555 tcp 3 4 20"
    told = next(line for line in desk.lines if line["event"] == "told")
    assert (told["namespace"], told["host"], told["port"], told["told"]) == (
        "alice", INNER, 7000, 5555,
    )  # fmt: skip


def test_a_hosts_refusal_is_passed_on() -> None:
    desk = Desk(Directory((Refusal("f" * 16, Code.VERSION, "too old"), None)))
    assert desk.answer(question("http", namespace="alice")) == "- version too old"


def test_a_host_that_can_not_be_asked_is_a_refusal() -> None:
    desk = Desk(Directory(LeaseRefused("gateway", "inner does not answer")))
    assert desk.answer(question("http", namespace="alice")) == "- gateway inner does not answer"
    assert Desk().answer(question("http", namespace="alice")) == "- unknown no such service"

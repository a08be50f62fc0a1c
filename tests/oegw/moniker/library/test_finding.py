"""From a name to a connection, command by command (MK-6, MK-11, MK-16, MK-17, MK-29, MK-30)."""

from __future__ import annotations

import errno
import random
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from oegw.moniker.library.cache import Cache
from oegw.moniker.library.errors import (
    AnswerUnusable,
    HostUnreachable,
    KeyRefused,
    NotEncrypted,
    ServiceDenied,
    ServiceUnknown,
    TooSlow,
    TransportUnavailable,
)
from oegw.moniker.library.finding import (
    Ask,
    Command,
    Finding,
    FindKey,
    Found,
    LookUpHost,
    Open,
    OpenByTcpmux,
    Place,
    Wish,
)
from oegw.moniker.names import MonikerError, ServiceName, Version
from oegw.moniker.sealedquery import seal_answer, unseal
from oegw.moniker.settings import ClientSettings, ServiceRule
from oegw.moniker.transports import MPTCP, SCTP, TCP, Kind, UnknownTransport
from oegw.moniker.wire import Answer, Code, Query, Refusal, is_ours, parse, text
from oegw.sst.statickey import StaticKey

FOUR = Place(ip_address("192.0.2.1"))
SIX = Place(ip_address("2001:db8::1"))
LOCAL = Place(ip_address("127.0.0.1"))
KEY = StaticKey(bytes(range(32)))
CLEAR = ClientSettings(encrypt="never")


class World:
    """Carries out commands, and remembers them.  ``services``: what the far daemon says, by
    transport asked for; a list is said one after the other."""

    def __init__(self, *places: Place, **says: Any) -> None:
        self.places = list(places) or [FOUR]
        self.says = says
        self.now = 1000.0
        self.cache = Cache()
        self.commands: list[Command] = []
        self.key: bytes | None = None
        self.private = KEY
        self.dead: set[Place] = set()
        self.silent: set[Place] = set()
        self.opens: list[Any] = []  # what comes of each Open, then sockets
        self.random = random.Random(1).randbytes

    def find(self, name: str = "starwars", policy: ClientSettings = CLEAR, **wish: Any) -> Any:
        self.commands.clear()
        return self.run(self.finding(name, policy, **wish).connection())

    def finding(self, name: str, policy: ClientSettings, **wish: Any) -> Finding:
        transport = wish.pop("transport", None)
        what = Wish("theforce.net", ServiceName.parse(name), transport, 1, 10.0, **wish)
        return Finding(what, policy, self.cache, random=self.random, clock=lambda: self.now)

    def run(self, steps: Any) -> Any:
        try:
            command = next(steps)
            while True:
                self.commands.append(command)
                try:
                    outcome = self.done(command)
                except (OSError, MonikerError) as error:
                    command = steps.throw(error)
                else:
                    command = steps.send(outcome)
        except StopIteration as end:
            return end.value

    def done(self, command: Command) -> Any:
        match command:
            case LookUpHost():
                return self.places
            case FindKey():
                if isinstance(self.key, Exception):
                    raise self.key
                return self.key
            case Ask(place, _, line, _):
                if place in self.dead:
                    raise ConnectionRefusedError(111, "refused")
                if place in self.silent:
                    raise TimeoutError("timed out")
                return self.answered(line)
            case Open():
                outcome = self.opens.pop(0) if self.opens else "socket"
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
            case OpenByTcpmux():
                return "socket after +"

    def answered(self, line: str) -> str:
        said = self.says
        if not isinstance(message := parse(line), Query):
            try:
                line, answer_key = unseal(line, self.private)
            except MonikerError:
                return text(Refusal("0" * 16, Code.KEY, "not my key"))
            message = parse(line)
            assert isinstance(message, Query)
            return seal_answer(self.said(message, said), answer_key, self.random)
        return self.said(message, said)

    def said(self, query: Query, says: Any) -> str:
        kinds = (None, *(kind.value for kind in Kind))
        wanted = "any" if query.transport in kinds else query.transport
        said = says.get(wanted, Code.UNKNOWN)
        if isinstance(said, list):
            said = said.pop(0)
        if isinstance(said, str) and not is_ours(said):
            return said
        if isinstance(said, Code):
            return text(Refusal(query.nonce, said))
        fields = {
            "port": 4711, "transport": "tcp", "version": Version.parse("1"), "families": "46",
            "ttl": 60,
        }  # fmt: skip
        return text(Answer(query.nonce, **{**fields, **said}))

    def did(self) -> list[str]:
        return [type(each).__name__ for each in self.commands]


def test_one_question_and_one_connection_to_the_same_address() -> None:
    world = World(any={})
    sock, found = world.find()
    assert sock == "socket"
    assert (found.place, found.encrypted, found.remembered) == (FOUR, False, False)
    assert world.did() == ["LookUpHost", "Ask", "Open"]
    ask, opening = world.commands[1:]
    assert (ask.place, ask.port) == (FOUR, 1)
    assert (opening.place, opening.port, opening.transport) == (FOUR, 4711, TCP)
    assert opening.sst is False


def test_an_address_that_is_silent_gets_its_whole_time_when_the_others_have_been_tried() -> None:
    world = World(any={})
    world.places = [SIX, FOUR]
    world.silent = {SIX}
    assert world.find()[1].place == FOUR
    asked = [each for each in world.commands if isinstance(each, Ask)]
    assert [(each.place, each.handshake) for each in asked] == [(SIX, 1.5), (FOUR, None)]
    world.silent = {SIX, FOUR}
    with pytest.raises(TooSlow):
        world.find("other")
    asked = [each for each in world.commands if isinstance(each, Ask)]
    assert [(each.place, each.handshake) for each in asked] == [
        (SIX, 1.5), (FOUR, None), (SIX, None),
    ]  # fmt: skip
    world.silent = {SIX}
    world.dead = {FOUR}
    with pytest.raises(HostUnreachable):
        world.find("third")


def test_an_answer_that_holds_saves_the_question() -> None:
    world = World(any=[{}, {"port": 4712}])
    world.find()
    _, found = world.find()
    assert found.remembered
    assert world.did() == ["LookUpHost", "Open"]
    world.now += 60
    _, found = world.find()
    assert world.did() == ["LookUpHost", "Ask", "Open"]
    assert found.answer.port == 4712


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(111, "x"), TimeoutError(), OSError(113, "no route")]
)
def test_an_answer_that_holds_no_longer_is_asked_for_again(error: OSError) -> None:
    world = World(any=[{}, {"port": 4712}])
    world.find()
    world.opens = [error]
    sock, found = world.find()
    assert world.did() == ["LookUpHost", "Open", "Ask", "Open"]
    assert world.commands[1].seconds == 3.0
    assert (sock, found.answer.port) == ("socket", 4712)


def test_a_server_that_restarts_just_now_is_asked_for_once_more() -> None:
    world = World(any=[{}, {"port": 4712}])
    world.opens = [ConnectionRefusedError(111, "x")]
    _, found = world.find()
    assert world.did() == ["LookUpHost", "Ask", "Open", "Ask", "Open"]
    assert found.answer.port == 4712


def test_a_server_that_refuses_twice_is_an_error_without_a_port() -> None:
    world = World(any={})
    world.opens = [ConnectionRefusedError(111, "x"), ConnectionRefusedError(111, "x")]
    with pytest.raises(HostUnreachable, match="starwars does not take connections") as caught:
        world.find()
    assert "4711" not in str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert world.did().count("Ask") == 2


def test_a_service_that_is_unknown_is_one_answer_for_all_addresses() -> None:
    world = World(FOUR, SIX)
    with pytest.raises(ServiceUnknown):
        world.find()
    assert world.did() == ["LookUpHost", "Ask"]


def test_the_next_address_if_one_is_dead() -> None:
    world = World(SIX, FOUR, any={})
    world.dead = {SIX}
    _, found = world.find()
    assert found.place == FOUR
    assert [each.place for each in world.commands[1:]] == [SIX, FOUR, FOUR]
    assert world.commands[1].seconds == 5.0  # half of the time for each
    world.dead = {SIX, FOUR}
    world.cache.forget_all()
    with pytest.raises(HostUnreachable, match=r"no daemon of Moniker answers there") as caught:
        world.find()
    assert "192.0.2.1" in str(caught.value)


def test_the_next_address_if_the_service_is_of_the_other_family() -> None:
    world = World(SIX, FOUR, any={"families": "4"})
    _, found = world.find()
    assert found.place == FOUR
    world = World(SIX, any={"families": "4"})
    with pytest.raises(ServiceUnknown, match="not over IPv6") as raised:
        world.find()
    assert raised.type is ServiceUnknown


def test_time_is_over() -> None:
    world = World(any={})
    world.opens = [TimeoutError("timed out")]
    with pytest.raises(TooSlow, match="no answer within 10 s") as caught:
        world.find()
    assert isinstance(caught.value, TimeoutError)


# ------------------------------------------------------------------------- transports


def test_any_transport_is_the_servers_choice() -> None:
    _, found = World(any={"transport": "sctp"}).find()
    assert found.kind() is Kind.STREAM
    world = World(sctp={"transport": "sctp"})
    _, found = world.find(transport="sctp", kind=None)
    assert world.commands[-1].transport is SCTP


def test_what_this_host_lacks_is_asked_for_by_name() -> None:
    lacking = TransportUnavailable(93, "no sctp here")
    world = World(any={"transport": "sctp"}, tcp=Code.TRANSPORT, mptcp={"transport": "mptcp"})
    world.opens = [lacking]
    world.find()
    assert world.did() == ["LookUpHost", "Ask", "Open", "Ask", "Ask", "Open"]
    assert world.commands[-1].transport is MPTCP
    world = World(any={"transport": "sctp"}, tcp=Code.TRANSPORT, mptcp=Code.TRANSPORT,
                  sctp={"transport": "sctp"})  # fmt: skip
    world.opens = [lacking, lacking]
    with pytest.raises(TransportUnavailable):
        world.find()


def test_a_stream_is_wanted_and_there_are_datagrams_too() -> None:
    world = World(any={"transport": "udp"}, tcp={})
    _, found = world.find()
    assert found.kind() is Kind.STREAM
    world = World(any={"transport": "udp"}, tcp=Code.TRANSPORT, mptcp=Code.TRANSPORT,
                  sctp=Code.TRANSPORT)  # fmt: skip
    with pytest.raises(ServiceUnknown, match="only over udp") as raised:
        world.find()
    assert raised.type is ServiceUnknown


def test_a_transport_of_a_newer_daemon() -> None:
    world = World(any={"transport": "quic"}, tcp={})
    world.find()
    assert world.did() == ["LookUpHost", "Ask", "Ask", "Open"]


def test_datagrams_are_asked_for_each_time() -> None:
    world = World(udp={"transport": "udp"})
    for _ in range(2):
        _, found = world.find(transport="udp", kind=None)
        assert world.did() == ["LookUpHost", "Ask", "Open"]
        assert found.kind() is Kind.DATAGRAM


def test_a_transport_of_the_other_kind_is_a_mistake() -> None:
    with pytest.raises(UnknownTransport, match="kind"):
        World().find(transport="udp", kind=Kind.STREAM)
    with pytest.raises(UnknownTransport, match="known are"):
        World().find(transport="quic")


@pytest.mark.parametrize(
    ("name", "transport", "says"),
    [("starwars", "tcp", {"transport": "udp"}), ("starwars@2", None, {})],
)
def test_an_answer_that_was_not_asked_for(name: str, transport: str | None, says: Any) -> None:
    with pytest.raises(AnswerUnusable, match=r"another (transport|version)"):
        World(any=says, tcp=says).find(name, transport=transport, kind=None)


# ----------------------------------------------------------------------------- TCPMUX


def test_a_server_of_rfc_1078_is_asked_in_its_way() -> None:
    world = World(any="-Unknown service")
    sock, found = world.find()
    assert sock == "socket after +"
    assert found.answer is None
    assert world.did() == ["LookUpHost", "Ask", "OpenByTcpmux"]
    assert world.commands[-1].name == ServiceName("starwars")
    assert found.kind() is Kind.STREAM


@pytest.mark.parametrize("name", ["bob::starwars", "starwars@1"])
def test_which_knows_neither_namespaces_nor_versions(name: str) -> None:
    with pytest.raises(ServiceUnknown, match="TCPMUX only"):
        World(any="-").find(name)
    with pytest.raises(ServiceUnknown, match="TCPMUX only"):
        World(any="-", sctp="-").find(transport="sctp", kind=None)


# ------------------------------------------------------------------------- encryption


PREFER = ClientSettings(encrypt="prefer")
REQUIRE = ClientSettings(encrypt="require")


def test_with_a_key_the_question_is_sealed() -> None:
    world = World(any={})
    world.key = KEY.public
    _, found = world.find(policy=PREFER)
    assert found.encrypted
    assert world.did() == ["LookUpHost", "FindKey", "Ask", "Open"]
    assert "starwars" not in world.commands[2].line
    assert world.commands[1].seconds == 2.0


def test_without_one_it_is_not_unless_it_must() -> None:
    world = World(any={})
    _, found = world.find(policy=PREFER)
    assert not found.encrypted
    with pytest.raises(NotEncrypted, match=r"theforce.net \(192.0.2.1\): there is no key"):
        world.find(policy=REQUIRE)
    assert "Ask" not in world.did()


def test_what_does_not_leave_the_host_needs_no_encryption() -> None:
    world = World(LOCAL, any={})
    _, found = world.find(policy=REQUIRE)
    assert world.did() == ["LookUpHost", "Ask", "Open"]
    assert not found.encrypted
    _, found = world.find(policy=REQUIRE)
    assert found.remembered


def test_what_was_answered_in_clear_is_not_used_where_it_must_be_sealed() -> None:
    world = World(any={})
    world.find(policy=PREFER)
    world.key = KEY.public
    _, found = world.find(policy=REQUIRE)
    assert world.did() == ["LookUpHost", "FindKey", "Ask", "Open"]
    assert found.encrypted
    _, found = world.find(policy=REQUIRE)
    assert found.remembered


def test_a_host_that_lost_its_key_is_asked_in_clear_unless_it_must_be_sealed() -> None:
    world = World(any={})
    world.key, world.private = KEY.public, StaticKey(bytes(32))
    _, found = world.find(policy=PREFER)
    assert not found.encrypted
    assert world.did() == ["LookUpHost", "FindKey", "Ask", "Ask", "Open"]
    world.cache.forget_all()
    with pytest.raises(KeyRefused):
        world.find(policy=REQUIRE)
    assert world.did() == ["LookUpHost", "FindKey", "Ask"]


def test_a_key_that_can_not_be_read_ends_it() -> None:
    world = World(any={})
    world.key = NotEncrypted("its key can't be read")  # type: ignore[assignment]
    with pytest.raises(NotEncrypted, match="can't be read"):
        world.find(policy=PREFER)
    assert "Ask" not in world.did()


def test_an_application_may_ask_for_more_than_the_policy_and_not_for_less() -> None:
    world = World(any={})
    with pytest.raises(NotEncrypted):
        world.find(policy=PREFER, encrypt="require")
    with pytest.raises(NotEncrypted):
        world.find(policy=REQUIRE, encrypt="never")
    world.find(policy=PREFER, encrypt="never")
    assert "FindKey" not in world.did()


def test_this_host_itself_is_asked_in_clear() -> None:
    world = World(LOCAL, any={})
    world.find(policy=PREFER)
    assert world.did() == ["LookUpHost", "Ask", "Open"]


def test_tcpmux_is_never_encrypted() -> None:
    world = World(any="-")
    world.key = KEY.public
    world.answered = lambda line: "-no such service"  # type: ignore[method-assign]
    with pytest.raises(NotEncrypted, match="TCPMUX"):
        world.find(policy=REQUIRE)
    world.find(policy=PREFER)
    assert world.did()[-1] == "OpenByTcpmux"


# ----------------------------------------------------------------------------- policy


def test_a_service_that_the_policy_refuses_is_not_asked_for() -> None:
    rules = (ServiceRule(True, "star*"), ServiceRule(False, origin="moniker.client.rule[2]"))
    policy = ClientSettings(rules, "never")
    World(any={}).find(policy=policy)
    world = World(any={})
    with pytest.raises(
        ServiceDenied, match=r"ssh of theforce.net: .*moniker.client.rule\[2\]"
    ) as raised:
        world.find("ssh", policy)
    assert raised.type is ServiceDenied
    assert world.did() == ["LookUpHost"]
    assert issubclass(ServiceDenied, PermissionError)


def test_a_host_without_ipv6_takes_the_other_address() -> None:
    class WithoutSix(World):
        def done(self, command: Command) -> Any:
            if isinstance(command, Ask) and command.place.family == "6":
                raise TransportUnavailable(errno.EAFNOSUPPORT, "no IPv6")
            return super().done(command)

    _, found = WithoutSix(SIX, FOUR, any={}).find()
    assert found.place == FOUR
    with pytest.raises(HostUnreachable):
        WithoutSix(SIX, any={}).find()


def test_a_rule_for_hosts_leaves_the_addresses_that_it_allows() -> None:
    rules = (ServiceRule(False, hosts=(ip_network("2001:db8::/32"),)),)
    world = World(SIX, FOUR, any={})
    _, found = world.find(policy=ClientSettings(rules, "never"))
    assert found.place == FOUR
    assert world.did() == ["LookUpHost", "Ask", "Open"]


def test_a_rule_that_changed_counts_for_what_is_remembered() -> None:
    world = World(any={})
    world.find()
    with pytest.raises(ServiceDenied):
        world.find(policy=ClientSettings((ServiceRule(False),), "never"))


def test_a_rule_may_require_encryption() -> None:
    policy = ClientSettings((ServiceRule(True, "starwars", encrypted=True),), "never")
    world = World(any={})
    with pytest.raises(NotEncrypted):
        world.find(policy=policy)
    world.key = KEY.public
    _, found = world.find(policy=policy)
    assert found.encrypted


# -------------------------------------------------------------------------- the rest


def test_encrypted_ports_as_the_service_wants_and_as_the_application_insists() -> None:
    world = World(any={"sst": True})
    world.find()
    assert world.commands[-1].sst is None
    world.find(sst=True)
    assert world.commands[-1].sst is True


def test_where_it_is_is_always_asked() -> None:
    world = World(any={})
    for _ in range(2):
        world.commands.clear()
        found = world.run(world.finding("starwars", CLEAR, kind=None).location())
        assert isinstance(found, Found)
        assert found.answer is not None
        assert found.answer.port == 4711
        assert world.did() == ["LookUpHost", "Ask"]


def test_not_more_addresses_than_are_tried() -> None:
    places = [Place(ip_address(f"192.0.2.{n}")) for n in range(1, 40)]
    world = World(*places)
    world.dead = set(places)
    with pytest.raises(HostUnreachable):
        world.find()
    assert world.did().count("Ask") == 8


def test_something_else_answers() -> None:
    for line in ("220 smtp ready", "MON/1 nonsense"):
        world = World(any={})
        world.answered = lambda _, said=line: said  # type: ignore[method-assign,misc]
        with pytest.raises(AnswerUnusable):
            world.find()

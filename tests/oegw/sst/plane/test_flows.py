"""What is in the kernel's maps, by our own books: after any sequence of events they agree."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address

from oegw.sst.interface import Entry, Leg, PortFlow
from oegw.sst.plane.elements import no_longer_declined, removed
from oegw.sst.plane.flows import Flows
from oegw.sst.plane.wire import Message
from tests.support.sst_plane import SETTINGS, SST

LOCAL = IPv4Address("192.0.2.1")
HOSTS = [IPv4Address("198.51.100.0") + number for number in range(4)]


class Maps:
    """Takes each message, and keeps those of the last transaction."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def run(self, messages: list[Message]) -> None:
        self.messages += messages


def flow(rng: random.Random) -> PortFlow:
    return PortFlow(LOCAL, rng.choice(HOSTS), 17, rng.randrange(1, 9), 53)


def entry(leg: Leg, flow: PortFlow) -> Entry:
    return Entry(leg, flow, flow.local_port + 1000, flow.remote_port, 0, 60.0)


def test_forgetting_a_host_removes_what_is_of_it_and_nothing_else() -> None:
    rng = random.Random(6)
    now = 0.0
    maps = Maps()
    given = replace(SETTINGS, sst=replace(SST, flows=8))  # so that room runs out now and then
    flows = Flows(given, maps, lambda: now)  # type: ignore[arg-type]
    entered: dict[tuple[Leg, PortFlow], Entry] = {}
    declined: set[tuple[Leg, PortFlow]] = set()
    for _ in range(3000):
        leg, one = rng.choice(list(Leg)), flow(rng)
        key = leg, one
        match rng.randrange(5):
            case 0 | 1 if flows.enter(entry(leg, one)):
                entered[key] = entry(leg, one)
                declined.discard(key)
            case 2:
                full = flows.full
                flows.decline(leg, one, 60.0)
                entered.pop(key, None)
                declined.discard(key)
                if flows.full == full:
                    declined.add(key)
            case 3 if rng.random() < 0.05:
                flows.declined_forgotten()
                declined.clear()
            case 4 if rng.random() < 0.3:
                remote = rng.choice([*HOSTS, None])
                maps.messages.clear()
                flows.forget(leg, remote)
                gone = {
                    k
                    for k in (*entered, *declined)
                    if k[0] is leg and remote in (None, k[1].remote)
                }
                expected = [
                    m for k in gone if k in entered for m in removed("oegw_sst", entered[k])
                ]
                expected += [no_longer_declined("oegw_sst", *k) for k in gone & declined]
                assert sorted(map(repr, maps.messages)) == sorted(map(repr, expected))
                entered = {k: e for k, e in entered.items() if k not in gone}
                declined -= gone
        assert len(flows) == len(entered)
        for (each, known), one_entry in entered.items():
            assert flows.of(each, known) == one_entry
    for leg in Leg:
        flows.forget(leg, None)
    assert len(flows) == 0
    assert not flows._by_host  # nothing is kept of hosts that have no flow

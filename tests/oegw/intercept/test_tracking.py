"""What connection tracking says to one question, in a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from oegw.intercept.tracking import Tracking
from tests.support.intercept_net import INSIDE, INSIDE6, PEER, PEER6, Net, wait_for, within

UDP = 17
STICKY = 0x01000000

# Marks come as a firewall sets them: one connection has our bit and an epoch, one has other bits.
_RULES = f"""
table inet user {{
    chain forward {{
        type filter hook forward priority 0
        ct state new accept
        udp sport 1111 ct mark set ct mark or {STICKY | 0x20000000:#x}
        udp sport 2222 ct mark set ct mark or 0x2
        udp sport 3333 ct mark set ct mark or {STICKY:#x}
    }}
}}
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net() as built:
        rules = f"nft -f - <<'END'\n{_RULES}\nEND"
        built.run(built.gateway, "sh", "-c", rules)
        yield built


@pytest.mark.netns
@pytest.mark.parametrize(("here", "there"), [(INSIDE, PEER), (INSIDE6, PEER6)])
def test_a_connection_is_known_in_both_directions_and_no_other(
    net: Net, here: str, there: str
) -> None:
    server, client = net.udp(net.outside, there, 4242), net.udp(net.inside, here, 5151)
    tracking = within(net.gateway, Tracking)
    source, destination = ip_address(here), ip_address(there)

    def known(*ports: int, swapped: bool = False) -> bool:
        ends = (destination, source) if swapped else (source, destination)
        return within(net.gateway, lambda: tracking.knows(*ends, UDP, *ports))

    assert not known(5151, 4242)
    client.send("hello", there, 4242)
    assert server.receive(2.0) == ["hello"]
    assert known(5151, 4242)
    assert known(4242, 5151, swapped=True)
    assert not known(5152, 4242)
    assert not known(4242, 5151)
    for each in (server, client, tracking):
        each.close()


@pytest.mark.netns
def test_marks_of_connections_are_found_by_their_bits(net: Net) -> None:
    server = net.udp(net.outside, PEER, 7777)
    tracking = within(net.gateway, Tracking)
    assert within(net.gateway, lambda: tracking.marks(STICKY, STICKY)) == set()
    for port in (1111, 2222, 3333):
        client = net.udp(net.inside, INSIDE, port)
        client.send("one", PEER, 7777)
        server.receive(2.0)
        client.send("two", PEER, 7777)
        server.receive(2.0)
        server.send("back", INSIDE, port)
        client.receive(2.0)
        client.send("three", PEER, 7777)
        client.close()
    wanted = {STICKY | 0x20000000, STICKY}
    wait_for(lambda: within(net.gateway, lambda: tracking.marks(STICKY, STICKY)) == wanted)
    tracking.close()
    server.close()

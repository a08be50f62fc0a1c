"""A control process with a user-space datapath, to be started in a network namespace.

    python -m tests.support.datapath_gateway SIDE FAMILY ENCAPSULATION ALGORITHM SETTINGS \\
        [ADDRESS PORT]

SETTINGS is a JSON object, fields of `UserspaceSettings`.  ADDRESS and PORT are A's, as this side
sees them.  Each line on its standard input is a question, each line on its output an answer or an
event:

    counters             the datapath's counters
    workers              names, process ids and restarts of its workers
    cores                which core each runs
    move ADDRESS PORT    A is elsewhere: all SAs are moved
    keying ADDRESS PORT  IKE is sent there
    keyings              how many KeyingDatagrams came, and the last
    close
"""

from __future__ import annotations

import asyncio
import json
import sys
from ipaddress import ip_address

from oegw.datapath.interface import (
    DatapathEvent,
    Direction,
    KeyingDatagram,
    PeerAddressChanged,
    SecurityAssociation,
    UdpEncapsulation,
)
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.datapath.userspace.settings import UserspaceSettings
from tests.support.datapath_sas import (
    A4,
    A6,
    B4,
    B6,
    GATEWAY_A4,
    GATEWAY_A6,
    GATEWAY_B4,
    GATEWAY_B6,
    arriving,
    make_sa,
    selector,
)

IKE = bytes(4) + b"keying"


def tunnels(
    family: int, encapsulated: bool, algorithm: str, outer_a: str, port: int
) -> list[SecurityAssociation]:
    """A to B and B to A, each for IPv4 and IPv6 inside, from the sender's sight: all outbound."""
    outer_b = GATEWAY_B4 if family == 4 else GATEWAY_B6
    sas = []
    for spi, (inner_a, inner_b) in enumerate(((A4, B4), (A6, B6)), 0x1000):
        for step, (source, destination, inner) in enumerate(
            (
                (outer_a, outer_b, (selector(inner_a), selector(inner_b))),
                (outer_b, outer_a, (selector(inner_b), selector(inner_a))),
            )
        ):
            sas.append(
                make_sa(
                    algorithm,
                    spi=spi + 0x100 * step,
                    source=source,
                    destination=destination,
                    inner=inner,
                    encapsulation=(
                        UdpEncapsulation(*((4500, port) if step else (port, 4500)))
                        if encapsulated
                        else None
                    ),
                    extended_sequence_numbers=True,
                )
            )
    return sas


def reports(datapath: UserspaceDatapath) -> dict[str, list[int | None]]:
    return {each.name: [each.pid, each.restarts] for each in datapath.workers()}


async def main(
    side: str,
    family: str,
    encapsulation: str,
    algorithm: str,
    settings: str,
    outer_a: str = "",
    port: str = "4500",
) -> None:
    keyings = 0
    last: KeyingDatagram | None = None

    def report(event: DatapathEvent) -> None:
        nonlocal keyings, last
        if isinstance(event, KeyingDatagram):
            keyings, last = keyings + 1, event
            return
        said: dict[str, object] = {"event": type(event).__name__, "text": repr(event)}
        if isinstance(event, PeerAddressChanged):
            said["peer"] = [str(event.address), event.port]
        print(json.dumps(said), flush=True)

    datapath = UserspaceDatapath(UserspaceSettings(**json.loads(settings)))
    await datapath.start(report)
    outer_a = outer_a or (GATEWAY_A4 if family == "4" else GATEWAY_A6)
    sas = tunnels(int(family), encapsulation == "udp", algorithm, outer_a, int(port))
    outer_b = GATEWAY_B4 if family == "4" else GATEWAY_B6
    outer = outer_a if side == "a" else outer_b
    installed = [sa if (str(sa.source) == outer_a) == (side == "a") else arriving(sa) for sa in sas]
    for sa in installed:
        await datapath.install(sa)
    print(json.dumps({"workers": reports(datapath)}), flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if line == "counters":
            print(json.dumps({"counters": await datapath.counters()}), flush=True)
        elif line == "cores":
            cores = {each.name: each.core for each in datapath.workers() if each.pid}
            print(json.dumps({"cores": cores}), flush=True)
        elif line == "workers":
            print(json.dumps({"workers": reports(datapath)}), flush=True)
        elif line.startswith("move"):
            assert side == "b"
            _, address, text = line.split()
            elsewhere, seen = ip_address(address), int(text)
            keys = []
            for sa in installed:
                if sa.direction is Direction.INBOUND:
                    way = elsewhere, sa.destination, UdpEncapsulation(seen, 4500)
                else:
                    way = sa.source, elsewhere, UdpEncapsulation(4500, seen)
                key = next(
                    k
                    for k in await datapath.usage()
                    if (k.direction, k.spi) == (sa.direction, sa.spi)
                )
                keys.append(await datapath.move(key, *way))
            print(json.dumps({"moved": len(keys)}), flush=True)
        elif line.startswith("keying "):
            _, address, text = line.split()
            datapath.send_keying(IKE, ip_address(outer), ip_address(address), int(text))
            print(json.dumps({"sent": True}), flush=True)
        elif line == "keyings":
            peer = [str(last.remote), last.remote_port, last.data.hex()] if last else None
            print(json.dumps({"keyings": keyings, "last": peer}), flush=True)
        elif line == "close":
            break
    await datapath.close()
    print(json.dumps({"closed": True}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

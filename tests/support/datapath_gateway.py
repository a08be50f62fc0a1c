"""A control process with a user-space datapath, to be started in a network namespace.

    python -m tests.support.datapath_gateway SIDE FAMILY ENCAPSULATION ALGORITHM MTU

Each line on its standard input is a question (``counters``, ``close``), each line on its output an
answer or an event.
"""

from __future__ import annotations

import asyncio
import json
import sys

from oegw.datapath.interface import DatapathEvent, SecurityAssociation, UdpEncapsulation
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


def tunnels(family: int, encapsulated: bool, algorithm: str) -> list[SecurityAssociation]:
    """A to B and B to A, each for IPv4 and IPv6 inside, from A's sight: all outbound."""
    outer_a = GATEWAY_A4 if family == 4 else GATEWAY_A6
    outer_b = GATEWAY_B4 if family == 4 else GATEWAY_B6
    encapsulation = UdpEncapsulation() if encapsulated else None
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
                    encapsulation=encapsulation,
                    extended_sequence_numbers=True,
                )
            )
    return sas


async def main(side: str, family: str, encapsulation: str, algorithm: str, mtu: str) -> None:
    def report(event: DatapathEvent) -> None:
        print(json.dumps({"event": type(event).__name__, "text": repr(event)}), flush=True)

    datapath = UserspaceDatapath(UserspaceSettings(mtu=int(mtu)))
    await datapath.start(report)
    outer = {"a": (GATEWAY_A4, GATEWAY_A6), "b": (GATEWAY_B4, GATEWAY_B6)}[side]
    for sa in tunnels(int(family), encapsulation == "udp", algorithm):
        await datapath.install(sa if str(sa.source) in outer else arriving(sa))
    print(json.dumps({"worker": datapath.worker}), flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if line == "counters":
            print(json.dumps({"counters": await datapath.counters()}), flush=True)
        elif line == "close":
            break
    await datapath.close()
    print(json.dumps({"closed": True}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

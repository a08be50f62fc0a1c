"""A process with a datapath, to be started in a network namespace, which does what it is told.

    python -m tests.support.xfrm_gateway {kernel,userspace}

Each line on its standard input is a JSON object, ``{"do": "install", ...}``, each line on its
output the answer to one, ``{"answer": ...}`` or ``{"refused": "..."}``, or an event,
``{"event": "...", ...}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from ipaddress import ip_address
from typing import Any

from oegw.datapath.interface import (
    Datapath,
    DatapathError,
    DatapathEvent,
    Direction,
    KeyingDatagram,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    UnknownSpiReceived,
)
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.datapath.xfrm.datapath import XfrmDatapath
from oegw.datapath.xfrm.settings import XfrmSettings
from tests.support.datapath_sas import arriving, make_sa, selector


def sa_of(order: dict[str, Any]) -> SecurityAssociation:
    """``make_sa`` with JSON's types: ``inner`` is two [prefix, protocol, port]."""
    fields = dict(order)
    inbound = fields.pop("inbound", False)
    source, destination = (selector(*each) for each in fields.pop("inner"))
    udp = fields.pop("udp", None)
    sa = make_sa(
        inner=(source, destination),
        encapsulation=UdpEncapsulation(*udp) if udp else None,
        **fields,
    )
    return arriving(sa) if inbound else sa


def key_of(order: dict[str, Any]) -> SaKey:
    direction = Direction.INBOUND if order.get("inbound") else Direction.OUTBOUND
    return SaKey(direction, order["spi"], ip_address(order["destination"]))


def told(event: DatapathEvent) -> dict[str, Any]:
    fields: dict[str, Any] = {"event": type(event).__name__, "text": repr(event)}
    if isinstance(event, SaExpired):
        fields |= {"spi": event.key.spi, "hard": event.hard}
    elif isinstance(event, UnknownSpiReceived):
        fields |= {"spi": event.spi, "source": str(event.source), "local": str(event.destination)}
    elif isinstance(event, PeerAddressChanged):
        fields |= {"spi": event.key.spi, "address": str(event.address), "port": event.port}
    elif isinstance(event, KeyingDatagram):
        fields |= {
            "data": event.data.hex(), "local": str(event.local),
            "remote": str(event.remote), "port": event.remote_port,
        }  # fmt: skip
    return fields


async def obey(datapath: Datapath, order: dict[str, Any]) -> Any:
    match order["do"]:
        case "install":
            for sa in order["sas"]:
                await datapath.install(sa_of(sa))
        case "remove":
            usage = await datapath.remove(key_of(order))
            return usage and [usage.packets, usage.bytes]
        case "move":
            udp = order.get("udp")
            await datapath.move(
                key_of(order["key"]),
                ip_address(order["source"]),
                ip_address(order["destination"]),
                UdpEncapsulation(*udp) if udp else None,
            )
        case "usage":
            found = await datapath.usage()
            now = time.monotonic()
            return {
                f"{key.direction.value} {key.spi:#x}": [
                    usage.packets,
                    usage.bytes,
                    None if usage.last_used is None else now - usage.last_used,
                ]
                for key, usage in found.items()
            }
        case "mend":
            return await datapath.mend()
        case "counters":
            return await datapath.counters()
        case "keying":
            ends = ip_address(order["source"]), ip_address(order["destination"])
            datapath.send_keying(bytes.fromhex(order["data"]), *ends, order["port"])
        case "close":
            await datapath.close()
    return None


async def main(kind: str, port: str = "4500") -> None:
    def report(event: DatapathEvent) -> None:
        print(json.dumps(told(event)), flush=True)

    datapath: Datapath = (
        XfrmDatapath(XfrmSettings(encapsulation_port=int(port)))
        if kind == "kernel"
        else UserspaceDatapath(UserspaceSettings())
    )
    capability = await datapath.start(report)
    print(json.dumps({"answer": capability.name}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        try:
            answer = {"answer": await obey(datapath, order)}
        except DatapathError as error:
            answer = {"refused": str(error)}
        print(json.dumps(answer), flush=True)
        if order["do"] == "close":
            return


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

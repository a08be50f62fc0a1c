"""Our user-space datapath with static SAs, in a process of its own: no IKE, no interception.

    ours_gateway.py JSON

JSON says: ``side`` (a or b), ``sas`` (how many pairs), ``algorithm``, ``udp``, ``settings`` (fields
of `UserspaceSettings`).  One line of JSON on standard output says that it stands, and one, after
SIGUSR1 and at the end after SIGTERM, what its counters are.

With one pair of SAs the two networks are its selectors.  With more, each has Alice and one of
Bob's addresses, from 10.2.64.0 on; the one of his own address is in the middle of them.

It may run beside another revision of this project (``PYTHONPATH``): it imports `oegw.datapath` and
nothing of the tests.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
import time
from dataclasses import fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import oegw
from oegw.datapath.interface import (
    Capability,
    DatapathEvent,
    Direction,
    SecurityAssociation,
    Selector,
    UdpEncapsulation,
)
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.datapath.userspace.settings import UserspaceSettings

OUTSIDE = {"a": "192.0.2.1", "b": "192.0.2.2"}
NETWORK = {"a": "10.1.0.0/16", "b": "10.2.0.0/16"}
HOST = {"a": "10.1.0.2", "b": "10.2.0.2"}
FIRST_OF_MANY = "10.2.64.0"
SPI = {"a": 0x100000, "b": 0x200000}  # of the first SA from this side
AT_A_TIME = 256  # installations that are under way

# Name, octets of the key (AES-GCM's with its salt), integrity, octets of its key.
ALGORITHMS = {
    "aes-128-gcm": ("aes-gcm-16", 20, None, 0),
    "aes-256-gcm": ("aes-gcm-16", 36, None, 0),
    "aes-128-cbc-sha2": ("aes-cbc", 16, "hmac-sha2-256-128", 32),
    "3des-sha1": ("3des-cbc", 24, "hmac-sha1-96", 20),
}


def selectors(count: int) -> list[tuple[str, str]]:
    """What each pair of SAs is for: A's hosts, B's hosts."""
    if count == 1:
        return [(NETWORK["a"], NETWORK["b"])]
    first = ip_address(FIRST_OF_MANY)
    pairs = [(HOST["a"], str(first + number)) for number in range(count - 1)]
    pairs.insert(count // 2, (HOST["a"], HOST["b"]))
    return pairs


def associations(asked: dict[str, Any]) -> list[SecurityAssociation]:
    """Of one gateway: the SAs of both directions."""
    cipher, key_octets, integrity, integrity_octets = ALGORITHMS[asked["algorithm"]]
    made = []
    for number, pair in enumerate(selectors(asked["sas"])):
        inner = dict(zip("ab", (Selector(ip_network(each)) for each in pair), strict=True))
        for sender, receiver in ("ab", "ba"):
            spi = SPI[sender] + number
            # Both gateways make the same keys; they protect nothing but zeros of a benchmark.
            keys = hashlib.shake_256(f"{asked['seed']} {spi}".encode()).digest(
                key_octets + integrity_octets
            )
            outbound = sender == asked["side"]
            made.append(
                SecurityAssociation(
                    direction=Direction.OUTBOUND if outbound else Direction.INBOUND,
                    spi=spi,
                    source=ip_address(OUTSIDE[sender]),
                    destination=ip_address(OUTSIDE[receiver]),
                    source_selector=inner[sender],
                    destination_selector=inner[receiver],
                    cipher=cipher,
                    encryption_key=keys[:key_octets],
                    integrity=integrity,
                    integrity_key=keys[key_octets:],
                    extended_sequence_numbers=True,
                    encapsulation=UdpEncapsulation() if asked["udp"] else None,
                )
            )
    return made


def _say(**said: object) -> None:
    print(json.dumps(said), flush=True)


def _heard(event: DatapathEvent) -> None:
    _say(event=type(event).__name__)


def settings(wanted: dict[str, Any]) -> UserspaceSettings:
    known = {each.name for each in fields(UserspaceSettings)}
    strange = sorted(set(wanted) - known)
    if strange:
        raise SystemExit(f"UserspaceSettings of this revision has no {', '.join(strange)}")
    return UserspaceSettings(**wanted)


def _described(capability: Capability) -> str:
    """What it says of its core and its offloads, if this revision has any."""
    known = {each.name: getattr(capability, each.name) for each in fields(capability)}
    words = [f"{known['core']} core ({known['core_reason']})"] if known.get("core") else []
    words += [f"{known['workers']} worker(s) for each direction"] if known.get("workers") else []
    for name, used, why in known.get("offloads", ()):
        words.append(f"{name}{'' if used else ' not'} in use{f' ({why})' if why else ''}")
    return ", ".join(words) or "one core, without offloads"


async def main(asked: dict[str, Any]) -> None:
    datapath = UserspaceDatapath(settings(asked["settings"]))
    capability = await datapath.start(_heard)
    began = time.monotonic()
    made = associations(asked)
    for first in range(0, len(made), AT_A_TIME):
        await asyncio.gather(*map(datapath.install, made[first : first + AT_A_TIME]))
    _say(
        ready=_described(capability),
        seconds=time.monotonic() - began,
        sas=len(made),
        root=str(Path(oegw.__file__).resolve().parent.parent),
    )
    del made
    wanted: asyncio.Queue[bool] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, wanted.put_nowait, True)
    loop.add_signal_handler(signal.SIGTERM, wanted.put_nowait, False)
    while await wanted.get():
        _say(counters=await datapath.counters())
    _say(counters=await datapath.counters())
    await datapath.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))

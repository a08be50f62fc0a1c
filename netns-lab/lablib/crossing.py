"""Simultaneous initiation: both hosts of many pairs send their first packet at one moment."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lablib import firstpackets
from lablib.errors import LabError
from lablib.lab import Lab
from lablib.stage import Missed, Stage, check_keys
from lablib.topology import IPAddress
from lablib.traces import plain
from lablib.waiting import patient, wait_until

PORT = 7000
AHEAD = 1.0  # seconds until the agreed moment, once both are ready
PAYLOAD = "oegw clear text!"  # the same as that of the pings, so that the same search finds it

Row = dict[str, Any]


def complaints(near: list[Row], far: list[Row], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """What keeps each pair from having exactly one tunnel, the same on both gateways.

    ``near`` and ``far`` are the connections that the two gateways have, of ``pairs`` the first is
    the host behind the near one.
    """

    def tunnels(rows: list[Row], source: str, destination: str) -> list[tuple[Any, Any]]:
        found: list[tuple[Any, Any]] = []
        for row in rows:
            if (plain(row["source"]), plain(row["destination"])) == (source, destination):
                found += [(row["spi_in"], row["spi_out"])] * int(row["tunnels"])
        return found

    result = []
    for one, other in pairs:
        here, there = tunnels(near, one, other), tunnels(far, other, one)
        if len(here) != 1 or len(there) != 1:
            result.append(f"{one} and {other}: {len(here)} and {len(there)} tunnels")
        elif here[0] != there[0][::-1]:
            result.append(f"{one} and {other}: SPIs in, out {here[0]} and {there[0]}")
    return result


def statuses(lab: Lab, gateways: list[str]) -> list[list[Row]]:
    """The connections of each of the two gateways."""
    if len(gateways) != 2:
        raise LabError(f"two gateways, not {gateways}")
    return [lab.gateways[name].status()["connections"] for name in gateways]


def pairs_of(lab: Lab, hosts: list[str]) -> list[tuple[IPAddress, IPAddress]]:
    """The first address of one host's crowd with the first of the other's, and so on."""
    one, other = (lab.crowd(host) for host in hosts)
    return list(zip(one, other, strict=True))


def cross(stage: Stage, step: dict[str, Any]) -> str:
    """Each address of both crowds sends a packet to its partner, all at the same moment.

    ``hosts`` are the two, ``gateways`` theirs.  ``within`` seconds later each pair must have
    exactly one live tunnel, the same on both gateways; and every packet must arrive.
    """
    check_keys(step, {"hosts", "gateways", "within"})
    lab, hosts, within = stage.lab, step["hosts"], float(step.get("within", 2))
    pairs = [(str(one), str(other)) for one, other in pairs_of(lab, hosts)]
    start, patience = time.time() + patient(AHEAD), patient(2 * within)
    order = {"port": PORT, "start": start, "end": start + patience, "payload": PAYLOAD}
    senders = []
    for host, mine in zip(hosts, (pairs, [pair[::-1] for pair in pairs]), strict=True):
        command = [sys.executable, str(Path(firstpackets.__file__))]
        command.append(json.dumps({**order, "pairs": mine}))
        senders.append(lab.run.start(f"firstpackets-{host}", host, command))
    for sender in senders:
        sender.await_text("bound")
    if time.time() > start:
        raise LabError("the senders were not ready at the agreed moment")
    time.sleep(max(0.0, start + within - time.time()))  # the moment at which it must be true
    amiss = complaints(*statuses(lab, step["gateways"]), pairs)
    for sender in senders:
        wait_until(f"end of {sender.name}", lambda s=sender: not s.running, 2 * within + 5)  # type: ignore[misc]
    heard: dict[str, float] = {}
    for sender in senders:
        heard |= json.loads(sender.text().splitlines()[-1])
    lost = sorted({address for pair in pairs for address in pair} - heard.keys())
    seen = f"{len(heard)} of {2 * len(pairs)} first packets arrived"
    if heard:
        seen += f", the last after {max(heard.values()) * 1000:.0f} ms"
    if lost:
        amiss.insert(0, f"none for {', '.join(lost[:3])}")
    if amiss:
        raise Missed("; ".join([seen, *amiss[:4]]))
    return f"{seen}; {len(pairs)} pairs with one tunnel each after {within:g} s"

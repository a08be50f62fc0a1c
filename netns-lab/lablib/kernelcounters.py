"""The kernel's own counters of its SAs, beside what the gateway's status says of them."""

from __future__ import annotations

import re

from lablib.lab import Lab
from lablib.stage import Missed

# `ip -s xfrm state`: the SPI, and further down what the SA has carried so far.
_SPI = re.compile(r"proto esp spi (0x[0-9a-f]{8})")
_CARRIED = re.compile(r"lifetime current:\s*(\d+)\(bytes\), (\d+)\(packets\)")

Carried = tuple[int, int]
"""Packets and octets."""


def of_kernel(text: str) -> dict[str, Carried]:
    """SPI in eight digits -> packets and octets, from the output of ``ip -s xfrm state``."""
    spis = [match[1].removeprefix("0x") for match in _SPI.finditer(text)]
    carried = [(int(match[2]), int(match[1])) for match in _CARRIED.finditer(text)]
    return dict(zip(spis, carried, strict=True))


def of_status(rows: list[dict[str, object]]) -> dict[str, Carried]:
    """The same from the rows of ``oegw status --json``; those with several tunnels are left out."""
    seen: dict[str, Carried] = {}
    for row in rows:
        if row.get("tunnels") == 1:
            for way in ("in", "out"):
                numbers = (row[f"packets_{way}"], row[f"bytes_{way}"])
                seen[str(row[f"spi_{way}"])] = (int(str(numbers[0])), int(str(numbers[1])))
    return seen


def compared(lab: Lab, gateway: str) -> str:
    """Raises Missed unless both agree about each SA of a tunnel that stands alone."""
    tried = ""
    for _ in range(5):  # a packet may pass between the two readings
        said = of_status(lab.gateways[gateway].status().get("connections") or [])
        counted = of_kernel(lab.run.call(gateway, ["ip", "-s", "xfrm", "state"]).stdout)
        if all(counted.get(spi) == carried for spi, carried in said.items()):
            packets = sum(packets for packets, _ in said.values())
            return f"{packets} packets through {len(said)} SAs, as status says"
        tried = f"the kernel {counted}, status {said}"
    raise Missed(tried)

"""What crossed the middle: tcpdump on both of its links, and a reader of its files.

It shares no code with the gateway, on purpose: that nothing leaked is shown by this file and by
tcpdump alone.
"""

from __future__ import annotations

import re
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.interop.processes import InteropError, Process, wait_until

_FILE_HEADER, _RECORD_HEADER, _ETHERNET = 24, 16, 14
_IPV4 = b"\x08\x00"
_UDP, _ESP = 17, 50
_IKE_FRAGMENT = 132  # payload number of the vendors' fragmentation scheme
_MARKER = b"\0\0\0\0"  # RFC 3948 section 2.2: IKE on port 4500
QUIET = 0.06  # seconds without a new octet, after which all that was sent is in the file


@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv4 packet: ``payload`` is what follows its IP header and, if it has one, UDP header."""

    time: float
    source: IPv4Address
    destination: IPv4Address
    protocol: int
    ports: tuple[int, int] | None
    payload: bytes
    frame: bytes

    @property
    def kind(self) -> str:
        """``esp``, ``esp-in-udp``, ``ike``, ``ike-4500``, ``keepalive`` or ``other``."""
        if self.protocol == _ESP:
            return "esp"
        if self.ports is None or not {500, 4500} & set(self.ports):
            return "other"
        if 500 in self.ports:
            return "ike"
        if self.payload == b"\xff":
            return "keepalive"
        return "ike-4500" if self.payload[:4] == _MARKER else "esp-in-udp"

    @property
    def message(self) -> bytes | None:
        """The IKE message in it."""
        match self.kind:
            case "ike":
                return self.payload
            case "ike-4500":
                return self.payload[4:]
        return None

    @property
    def is_ike_fragment(self) -> bool:
        message = self.message
        return message is not None and len(message) > 28 and message[16] == _IKE_FRAGMENT


def _packet(moment: float, frame: bytes) -> Packet | None:
    if frame[12:14] != _IPV4:
        return None
    ip = frame[_ETHERNET:]
    header = (ip[0] & 15) * 4
    total = int.from_bytes(ip[2:4], "big")
    payload = ip[header:total]
    protocol, ports = ip[9], None
    later_fragment = int.from_bytes(ip[6:8], "big") & 0x1FFF
    if protocol == _UDP and not later_fragment and len(payload) >= 8:
        first, second = struct.unpack("!HH", payload[:4])
        ports, payload = (first, second), payload[8:]
    return Packet(
        moment, IPv4Address(ip[12:16]), IPv4Address(ip[16:20]), protocol, ports, payload, frame
    )


class Capture:
    """One link, from the start of the bed to its end; cells read their part of it."""

    def __init__(self, namespace: str, interface: str, directory: Path) -> None:
        self._path = directory / f"{interface}.pcap"
        options = ["-n", "-U", "--immediate-mode", "-Z", "root", "-s", "2048", "-B", "16384"]
        self._process = Process.start(
            f"tcpdump on {interface}",
            namespace,
            ["tcpdump", *options, "-i", interface, "-w", str(self._path)],
            directory / f"tcpdump-{interface}.log",
        )

    def ready(self) -> None:
        def listening() -> bool:
            self._process.require()
            return "listening on" in self._process.text()

        wait_until("tcpdump listening", listening)

    def mark(self) -> int:
        """The place in the file from which ``since`` reads."""
        self._settle()
        return self._path.stat().st_size

    def since(self, mark: int, settle: bool = True) -> list[Packet]:
        if settle:
            self._settle()
        return [packet for packet in self._records(mark) if packet is not None]

    def _records(self, mark: int) -> Iterator[Packet | None]:
        with self._path.open("rb") as file:
            file.seek(max(mark, _FILE_HEADER))
            while len(head := file.read(_RECORD_HEADER)) == _RECORD_HEADER:
                seconds, micros, kept, _ = struct.unpack("=IIII", head)
                frame = file.read(kept)
                if len(frame) < kept:
                    return
                yield _packet(seconds + micros * 1e-6, frame)

    def _settle(self) -> None:
        size, since = -1, time.monotonic()

        def quiet() -> bool:
            nonlocal size, since
            self._process.require()
            now = self._path.stat().st_size
            if now != size:
                size, since = now, time.monotonic()
            return time.monotonic() - since > QUIET

        wait_until("a quiet moment on the link", quiet)

    def end(self) -> None:
        """Raises InteropError if the kernel dropped packets: then the capture proves nothing."""
        self._process.end()
        dropped = re.search(r"(\d+) packets dropped by kernel", self._process.text())
        if dropped is None or int(dropped[1]):
            raise InteropError(f"the capture is not complete: {self._process.text()}")


def kinds(packets: list[Packet]) -> Counter[str]:
    return Counter(packet.kind for packet in packets)


def in_clear(packets: list[Packet], inside: tuple[str, ...], pattern: bytes) -> list[str]:
    """The packets that should not be there: with inner addresses, or with what the pings carry."""
    networks = [IPv4Network(network) for network in inside]
    return [
        f"{p.source} -> {p.destination} protocol {p.protocol}: {p.payload[:32].hex()}"
        for p in packets
        if any(p.source in n or p.destination in n for n in networks) or pattern in p.frame
    ]

"""What was measured: for each contender and key a value of each round."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = 1  # of the JSON form


@dataclass(frozen=True, slots=True)
class Quantity:
    """``digits`` behind the point; of most, more is better."""

    title: str
    unit: str
    digits: int = 0
    less_is_better: bool = False


QUANTITIES = {
    "tcp1": Quantity("TCP, 1 stream", "Mbit/s"),
    "tcp4": Quantity("TCP, 4 streams", "Mbit/s"),
    "udp": Quantity("UDP, 64 octets", "packets/s"),
    "rtt_idle": Quantity("round trip, idle", "ms", 3, True),
    "rtt_idle_p99": Quantity("round trip, idle, 99 %", "ms", 3, True),
    "rtt_loaded": Quantity("round trip, loaded", "ms", 3, True),
    "rtt_loaded_p99": Quantity("round trip, loaded, 99 %", "ms", 3, True),
    "cpu_gateways": Quantity("CPU of the gateways' processes", "s/GB", 2, True),
    "cpu_machine": Quantity("CPU of all", "s/GB", 2, True),
    "memory": Quantity("memory of both gateways", "MB", 1, True),
    "memory_sas": Quantity("memory of a gateway per 1,000 SAs", "MB", 2, True),
    "memory_tunnels": Quantity("memory of a gateway per 1,000 tunnels", "MB", 2, True),
    "many_tcp1": Quantity("TCP, 1 stream, 10,000 tunnels", "Mbit/s"),
    "few_tcp1": Quantity("TCP, 1 stream, 1 tunnel", "Mbit/s"),
    "many_udp": Quantity("UDP, each datagram by another of 1,000 SAs", "packets/s"),
    "few_udp": Quantity("UDP, to 1,000 hosts, 1 tunnel", "packets/s"),
    "road_smooth": Quantity("TCP by the relay, nothing harmed", "Mbit/s"),
    "road_rough": Quantity("TCP by the relay that harms", "Mbit/s"),
    "road_ratio": Quantity("what is left there", "ratio", 2),
    "road_repeated": Quantity("sent twice by the relay", "packets"),
    "road_replays": Quantity("dropped as replays", "packets"),
    "many_seconds": Quantity("installing 20,000 SAs", "s", 1, True),
}


@dataclass(slots=True)
class About:
    """A contender as the tables speak of it.  ``failures``: what did not work, in which round."""

    title: str
    ours: bool = False
    in_clear: bool = False
    version: str = ""
    missing: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """One run of the bench.  ``machine`` and ``asked``: where and how, to be printed."""

    machine: dict[str, str] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    contenders: dict[str, About] = field(default_factory=dict)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, contender: str, found: dict[str, float]) -> None:
        for key, value in found.items():
            assert key in QUANTITIES, key
            self.values.setdefault(contender, {}).setdefault(key, []).append(value)

    def of(self, contender: str, key: str) -> list[float]:
        return self.values.get(contender, {}).get(key, [])

    def median(self, contender: str, key: str) -> float | None:
        values = self.of(contender, key)
        return statistics.median(values) if values else None

    def best(self, contenders: Iterable[str], key: str) -> tuple[str, float] | None:
        """The one with the best median, and it."""
        found = [(each, median) for each in contenders if (median := self.median(each, key))]
        if not found:
            return None
        choose = min if QUANTITIES[key].less_is_better else max
        return choose(found, key=lambda pair: pair[1])

    @property
    def peers(self) -> list[str]:
        """Other people's tunnels."""
        return [n for n, about in self.contenders.items() if not about.ours and not about.in_clear]

    @property
    def openvpns(self) -> list[str]:
        return [name for name in self.peers if name.startswith("openvpn")]

    def serialize(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def parse(cls, text: str) -> Run:
        """Raises ValueError."""
        said = json.loads(text)
        if said.pop("version", None) != VERSION:
            raise ValueError(f"not the figures of this bench, version {VERSION}")
        about = {name: About(**each) for name, each in said.pop("contenders").items()}
        return cls(contenders=about, **said)

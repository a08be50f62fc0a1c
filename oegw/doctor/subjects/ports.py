"""UDP 500 and 4500, and ESP: ours, and let in."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.doctor.facts import IKE_PORTS, Facts
from oegw.doctor.filtering import ChainName, Packet, dropping
from oegw.doctor.finding import PROBLEM, WARNING, Finding, Kind, Shell
from oegw.doctor.firewalls import allowing, chains_of

TAKEN = Kind(
    "ike-port-taken",
    PROBLEM,
    "another process has UDP port 500 or 4500",
    "a start fails, or peers' messages reach that process and not us",
    "{mend}",
)
BLOCKED = Kind(
    "ike-port-blocked",
    PROBLEM,
    "a firewall of this box drops UDP port 500 or 4500 from outside",
    "peers can't begin a tunnel, and their answers may not come in",
    "{mend}",
)
ESP_BLOCKED = Kind(
    "esp-blocked",
    WARNING,
    "a firewall of this box drops ESP from outside",
    "tunnels with peers that don't put ESP into UDP are agreed on, and carry nothing",
    "{mend}",
)
KINDS = (TAKEN, BLOCKED, ESP_BLOCKED)


def look(facts: Facts) -> Iterator[Finding]:
    ours = {str(address) for address in facts.environment.addresses}
    for socket in facts.sockets():
        others = [each for each in socket.owners if not each.ours]
        if others and socket.address in (*ours, "0.0.0.0", "::"):  # noqa: S104  (that is asked)
            process = others[0]
            mend = Shell(f"kill {process.number}")
            if process.unit and facts.host().systemd:
                mend = Shell(f"systemctl disable --now {process.unit}")
            what = f"process {process.number} ({process.name}) has UDP port {socket.port}"
            yield TAKEN.found(f"{what} of {socket.address}", mend=mend)
    yield from _blocked(facts)


def _blocked(facts: Facts) -> Iterator[Finding]:
    chains = chains_of(facts)
    versions = sorted({each.version for each in facts.environment.addresses})
    ports: dict[ChainName, dict[int, None]] = {}
    for outside in facts.environment.outside:
        for version in versions:
            for port in IKE_PORTS:
                packet = Packet(version, "udp", incoming=outside, port=port)
                for chain in dropping(chains, "input", packet):
                    ports.setdefault(chain.name, {})[port] = None
    for name, blocked in ports.items():
        yield BLOCKED.found(
            f"{name} drops what comes from outside to UDP port {' and '.join(map(str, blocked))}",
            mend=allowing(facts, name, "udp", ports=tuple(blocked)),
        )
    stopped: dict[ChainName, None] = {}
    for outside in facts.environment.outside:
        for version in versions:
            for chain in dropping(chains, "input", Packet(version, "esp", incoming=outside)):
                stopped[chain.name] = None
    for name in stopped:
        what = f"{name} drops ESP that comes from outside"
        yield ESP_BLOCKED.found(what, mend=allowing(facts, name, "esp"))

"""DNSSEC in the lab: signed zones, and such as are not, or wrongly, or were long ago.

With ``[dnssec]`` in ``expect.toml`` all zones are signed, with ECDSA, and the resolver validates; a
host of ``[dnssec.hosts]`` has its reverse name in a zone of its own, which is

    signed     as the others
    unsigned   not signed, and the zone above proves that it need not be
    wrong      signed, and its TXT, KEY and IPSECKEY records changed afterwards
    expired    signed, until 2020
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lablib.errors import LabError
from lablib.topology import Topology, twin_address
from lablib.waiting import patient

STATES = ("signed", "unsigned", "wrong", "expired")
ALGORITHM = "ECDSAP256SHA256"
SECONDS = 20.0  # for all zones together
# The keys of an expired zone are signed for longer (-X), so that it is its records that expired.
_PAST = ["-s", "20200101000000", "-e", "20200201000000", "-X", "20370101000000"]
# A record as dnssec-signzone writes it with -O full: one line, and no signature.
_CHANGED = re.compile(r"^(\S+\s+\d+\s+IN\s+(?:TXT|KEY|IPSECKEY)\s+)(.*)$", re.MULTILINE)


def own_zones(topology: Topology, hosts: Mapping[str, str]) -> dict[str, str]:
    """The zones of hosts that have one of their own, for both families, with their states."""
    result = {}
    for name, state in hosts.items():
        if state not in STATES:
            raise LabError(f"dnssec.hosts: {name}: {state!r} is none of {', '.join(STATES)}")
        address = topology.address(name)
        for either in (address, twin_address(address)):
            result[either.reverse_pointer] = state
    return result


def parent(name: str, zones: Iterable[str]) -> str:
    """The zone that delegates to zone ``name``."""
    labels = name.split(".")
    above = (".".join(labels[count:]) for count in range(1, len(labels) + 1))
    return next(zone for zone in above if zone in zones)


def _together(commands: Sequence[Sequence[str]]) -> list[str]:
    """Run commands side by side; what they print.  Raises LabError if one fails."""
    running = [
        subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            stdin=subprocess.DEVNULL,
        )
        for command in commands
    ]  # fmt: skip
    printed = []
    for process, command in zip(running, commands, strict=True):
        out, complaints = process.communicate(timeout=patient(SECONDS))
        if process.returncode:
            raise LabError(f"{command[0]}: {complaints.strip()}")
        printed.append(out)
    return printed


class Signer:
    """The keys of a run's zones, and what is done with them."""

    def __init__(self, directory: Path) -> None:
        self._zones = directory / "zones"
        self._keys = directory / "dnssec"
        self._keys.mkdir(exist_ok=True)
        self._key_of: dict[str, str] = {}  # the name of its files, by zone

    def sign(self, zones: Mapping[str, str], own: Mapping[str, str]) -> None:
        """Sign the files of ``zones`` (file by name) in place, each as ``own`` says, or rightly."""
        signed = [name for name in zones if own.get(name) != "unsigned"]
        self._make_keys(name for name in signed if name not in self._key_of)
        for name in signed:
            if name:
                above = self._zones / zones[parent(name, zones)]
                with above.open("a") as stream:
                    stream.write(self._ds(name))
        _together(
            [
                [
                    *("dnssec-signzone", "-q", "-S", "-z", "-P", "-O", "full", "-N", "keep"),
                    *(_PAST if own.get(name) == "expired" else []),
                    *("-K", str(self._keys), "-d", str(self._keys), "-o", f"{name}."),
                    *("-f", str(self._zones / zones[name]), str(self._zones / zones[name])),
                ]
                for name in signed
            ]
        )
        for name in signed:
            if own.get(name) == "wrong":
                _spoil(self._zones / zones[name])

    def trust_anchor(self) -> Path:
        """A file with the key of the root."""
        return self._keys / f"{self._key_of['']}.key"

    def _make_keys(self, zones: Iterable[str]) -> None:
        names = list(zones)
        made = _together(
            [
                [
                    *("dnssec-keygen", "-q", "-a", ALGORITHM, "-f", "KSK"),
                    *("-K", str(self._keys), f"{name}."),
                ]
                for name in names
            ]
        )
        self._key_of |= dict(zip(names, (text.strip() for text in made), strict=True))
        digests = _together(
            [
                ["dnssec-dsfromkey", "-2", str(self._keys / f"{self._key_of[name]}.key")]
                for name in names
            ]
        )
        for name, text in zip(names, digests, strict=True):
            (self._keys / f"{self._key_of[name]}.ds").write_text(text)

    def _ds(self, name: str) -> str:
        return (self._keys / f"{self._key_of[name]}.ds").read_text()


def _spoil(file: Path) -> None:
    """Change what a signed zone says about gateways, so that its signatures don't hold."""

    def changed(found: re.Match[str]) -> str:
        rdata = found[2]
        if "X-IPsec-Server(" in rdata:
            return found[1] + rdata.replace("X-IPsec-Server(", "X-IPsec-Server(1", 1)
        first, rest = rdata.split(None, 1)
        return f"{found[1]}{int(first) ^ 1} {rest}"  # of a KEY: a flag; of an IPSECKEY: precedence

    text, count = _CHANGED.subn(changed, file.read_text())
    if not count:
        raise LabError(f"{file.name}: has no record of a gateway to spoil")
    file.write_text(text)

"""Ours: `UserspaceDatapath` with static SAs, in the variants that its settings know."""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from oegw.datapath.userspace.settings import UserspaceSettings
from tests.bench.datapath.contender import Contender, Standing
from tests.bench.datapath.row import NETWORK, OTHER, OUTSIDE, SIDES
from tests.interop.processes import InteropError, Process, wait_until

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = Path(__file__).resolve().parents[1] / "ours_gateway.py"
_TUNNEL_MARK = "0x20000"
_START_SECONDS = 90.0  # with 20,000 SAs
_KNOWN = {each.name for each in fields(UserspaceSettings)}


@dataclass(frozen=True, slots=True)
class Variant:
    """``root``: the checkout whose datapath it is."""

    name: str
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "aes-128-gcm"
    udp: bool = True
    sas: int = 1
    root: Path = ROOT

    def contender(self) -> Contender:
        return Contender(self.name, self.title, partial(_begin, self), ours=True)


def _begin(variant: Variant, standing: Standing) -> None:
    seed = secrets.token_hex(16)
    for side in SIDES:
        _lead_into_tunnel(standing, side)
        asked = {
            "side": side,
            "sas": variant.sas,
            "algorithm": variant.algorithm,
            "udp": variant.udp,
            "settings": variant.settings,
            "seed": seed,
        }
        standing.start(
            side,
            [sys.executable, "-P", str(PROGRAM), json.dumps(asked)],
            {"PYTHONPATH": str(variant.root)},
        )
    for process in standing.programs.values():
        wait_until(f"{process.name} ready", partial(_ready, process), _START_SECONDS)
    ready = stood(standing.programs["a"])
    standing.says = str(ready["ready"])
    if Path(str(ready["root"])) != variant.root.resolve():
        raise InteropError(f"{variant.name} is the one of {ready['root']}")


def _ready(process: Process) -> bool:
    process.require()
    return bool(stood(process))


def stood(process: Process) -> dict[str, Any]:
    """What one of our gateways said when it stood; empty before."""
    for line in process.text().splitlines():
        if line.startswith('{"ready": ') and line.endswith("}"):
            said: dict[str, Any] = json.loads(line)
            return said
    return {}


def _lead_into_tunnel(standing: Standing, side: str) -> None:
    """The mark that interception sets.  No packet takes the route beside it, but without one the
    reverse path filter holds what comes out of the tunnel for forged."""
    gateway = standing.row.gateway(side)
    rules = (
        "add table inet bench { chain pre { type filter hook prerouting priority mangle; "
        f'iifname "in0" meta mark set {_TUNNEL_MARK}; }}; }}'
    )
    standing.row.run(gateway, "nft", rules)
    other = OTHER[side]
    standing.row.ip(gateway, f"route add {NETWORK[other]} via {OUTSIDE[other]}")


def before(root: Path, name: str) -> Contender:
    """Another revision of this project, by what its settings choose."""
    return Variant("before", f"ours at {name}", root=root).contender()


def described(text: str) -> Variant:
    """``NAME:key=value,...`` of a command line; a value is JSON, or else a text.

    Keys are those of `UserspaceSettings`, and ``algorithm``, ``udp`` and ``sas``.
    """
    name, _, rest = text.partition(":")
    variant = Variant(name, f"ours, {rest or 'as it is'}")
    for each in filter(None, rest.split(",")):
        key, _, value = each.partition("=")
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = value
        if key in ("algorithm", "udp", "sas"):
            variant = replace(variant, **{key: parsed})
        elif key in _KNOWN:
            variant = replace(variant, settings={**variant.settings, key: parsed})
        else:
            raise InteropError(f"--variant {text}: there is no setting {key!r}")
    return variant


def _variants() -> tuple[Variant, ...]:
    """Those that this revision's settings can choose; one without choices has one core only."""
    if "core" not in _KNOWN:
        return (
            Variant("ours-python", "ours"),
            Variant("ours-esp", "ours, plain ESP", udp=False),
            Variant("ours-cbc", "ours, AES-128-CBC + SHA2-256", algorithm="aes-128-cbc-sha2"),
        )
    compiled, python = {"core": "compiled"}, {"core": "python"}
    return (
        Variant("ours-compiled", "ours, compiled core", compiled),
        Variant("ours-python", "ours, pure Python", python),
        Variant("ours-no-offloads", "ours, no offloads", {**compiled, "offloads": False}),
        Variant("ours-esp", "ours, plain ESP", compiled, udp=False),
        Variant("ours-cbc", "ours, AES-128-CBC + SHA2-256", compiled, algorithm="aes-128-cbc-sha2"),
    )


VARIANTS = _variants()
OURS = tuple(variant.contender() for variant in VARIANTS)

"""The ladder of one negotiation: who sent what to whom, when, and how it ended.  Pure.

From the steps of `oegw probe`; the labels are the draft's time points (section 3.2).  What only the
peer sees, its own look-ups, has no time.  `laddertext.py` and `laddersvg.py` draw it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from oegw.status import host, plain

Line = Mapping[str, Any]


class Party(Enum):
    """In the order of the drawing."""

    ALICE = "Alice"
    SG_A = "SG-A"
    DNS = "DNS"
    SG_B = "SG-B"
    BOB = "Bob"


class Kind(Enum):
    PACKET = "packet"  # clear
    DNS = "dns"
    IKE = "ike"
    ESP = "esp"
    LOCAL = "local"  # nothing is sent
    UNSEEN = "unseen"  # by the peer
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Rung:
    """``seconds`` since the start, or None if it was not seen; ``answered`` is False for what
    nobody replied to before the end."""

    label: str
    begin: Party
    end: Party
    kind: Kind
    text: str
    seconds: float | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Ladder:
    """``addresses`` of the parties, as far as they are known; ``result`` is a state of RFC 4322, or
    a category; ``tunnel``: the lines about the tunnel that came of it."""

    addresses: dict[Party, str]
    rungs: tuple[Rung, ...]
    result: str
    reason: str
    tunnel: tuple[str, ...] = ()

    @property
    def keyed(self) -> bool:
        return self.result == "keyed"

    @property
    def clear(self) -> bool:
        return self.result in ("clear", "permit")

    @property
    def summary(self) -> str:
        """In one sentence."""
        pair = f"{self.addresses[Party.ALICE]} to {self.addresses[Party.BOB]}"
        took = [r.seconds for r in self.rungs if r.seconds is not None]
        after = f" after {milliseconds(took[-1])} ms" if took else ""
        reason = f" ({self.reason})" if self.reason else ""
        match self.result:
            case "keyed":
                return f"{pair}: encrypted{after}, by {self.addresses.get(Party.SG_B, 'a gateway')}"
            case "clear" | "permit":
                return f"{pair}: in clear{after}{reason}"
            case "denied" | "deny":
                return f"{pair}: dropped{after}{reason}"
            case other:
                return f"{pair}: {other}{after}{reason}"


def milliseconds(seconds: float) -> str:
    """As many digits as anybody reads."""
    return f"{seconds * 1000:.0f}" if seconds >= 1 else f"{seconds * 1000:.1f}"


_MESSAGES = {
    "MM1": ("5D", "message 1: proposals"),
    "MM2": ("5E1", "message 2: the choice"),
    "MM3": ("5E2", "message 3: Diffie-Hellman"),
    "MM4": ("5E3", "message 4: Diffie-Hellman"),
    "MM5": ("5E4", "message 5: who we are, signed"),
    "MM6": ("5E5", "message 6: who it is, signed"),
    "QM1": ("5G1", "a tunnel is proposed"),
    "QM2": ("5G4", "it is accepted"),
    "QM3": ("5G4", "confirmed"),
}
_QUESTIONS = {
    "gateway": ("5B", "5C", "who is the gateway of Bob?"),
    "gateway-key": ("", "", "which key has it?"),
    "own": ("", "", "what is said of ourselves?"),
    "peer": ("", "", "where is the configured peer?"),
}


def ladder_of(
    lines: Iterable[tuple[float, Line]], source: str, destination: str, result: str, reason: str
) -> Ladder:
    """``lines``: of the trace, with seconds since the start."""
    addresses = {Party.ALICE: plain(source), Party.BOB: plain(destination)}
    rungs = [Rung("5", Party.ALICE, Party.SG_A, Kind.PACKET, "a packet for Bob (the probe)", 0.0)]
    tunnel: tuple[str, ...] = ()
    by_dns = False
    for seconds, line in lines:
        told = (line.get("category"), line.get("event"))
        kind = str(line.get("purpose") or line.get("message") or "")
        match told:
            case "dns", "query" | "answer" if kind in _QUESTIONS:
                by_dns = by_dns or kind == "gateway"
                rungs.append(_question(line, kind, seconds))
                addresses.setdefault(Party.DNS, plain(line.get("server") or ""))
            case "ike", "sent" | "received" if kind in _MESSAGES:
                if line.get("local"):
                    addresses[Party.SG_A] = plain(line["local"])
                addresses[Party.SG_B] = plain(line.get("remote", ""))
                rungs += _message(line, kind, seconds, by_dns)
            case "connection", "trust":
                addresses[Party.SG_B] = plain(line.get("gateway", ""))
                rungs = _named(rungs, line)
            case "decision", "asked" | "answered":
                text = f"decision point {plain(line.get('point', '?'))} {told[1]}"
                rungs.append(_here("", text, seconds))
            case "sa", "installed":
                way = "inbound" if line.get("direction") == "in" else "outbound"
                text = f"{way} SA {plain(line.get('spi', ''))}"
                rungs.append(_here("5H", text, seconds))
            case "tunnel", "keyed":
                tunnel = _tunnel(line)
                rungs.append(
                    Rung("6", Party.SG_A, Party.SG_B, Kind.ESP, "the packet, encrypted", seconds)
                )
            case "gateway", "malformed_record" | "negotiation_failed":
                text = plain(line.get("detail") or line.get("reason") or told[1])
                rungs.append(_here("", text, seconds, Kind.FAILED))
            case _:
                pass
    if result != "keyed":
        rungs = _without_answers(rungs)
    addresses = {party: address for party, address in addresses.items() if address}
    return Ladder(addresses, tuple(rungs), plain(result), plain(reason), tunnel)


def _question(line: Line, kind: str, seconds: float) -> Rung:
    asked, answered, text = _QUESTIONS[kind]
    if line["event"] == "query":
        name = plain(line.get("name", "")).rstrip(".")
        rdtype = plain(line.get("rdtype", "TXT"))
        words = f"{rdtype} of {name}?" if name else text
        return Rung(asked, Party.SG_A, Party.DNS, Kind.DNS, words, seconds)
    status = plain(line.get("status", ""))
    records = line.get("records")
    if status == "answered" and isinstance(records, int):
        words = f"{records} record{'s' * (records != 1)}" if records else "no record"
    else:
        words = plain(line.get("detail") or "") or status.replace("_", " ") or "answer"
    if line.get("cached"):
        words += ", known already"
    return Rung(answered, Party.DNS, Party.SG_A, Kind.DNS, words, seconds)


def _named(rungs: list[Rung], line: Line) -> list[Rung]:
    """The answer about the gateway says, now that it was read, whom it names and for how sure."""
    for place in range(len(rungs) - 1, -1, -1):
        if rungs[place].label == "5C":
            trust = {"secure": "signed", "insecure": "not signed"}.get(str(line.get("trust")), "")
            words = f"SG-B is {plain(line.get('gateway'))}" + (f", {trust}" if trust else "")
            rungs = [*rungs[:place], replace(rungs[place], text=words), *rungs[place + 1 :]]
            break
    return rungs


def _message(line: Line, kind: str, seconds: float, by_dns: bool) -> list[Rung]:
    label, text = _MESSAGES[kind]
    if line.get("retransmission"):
        text += ", again"
    if line["event"] == "sent":
        return [Rung(label, Party.SG_A, Party.SG_B, Kind.IKE, text, seconds)]
    rungs = []
    if by_dns and kind == "MM6":
        rungs.append(_unseen("5F", "which key has SG-A?"))
    if by_dns and kind == "QM2":
        rungs.append(_unseen("5G2", "may SG-A speak for Alice?"))
    return [*rungs, Rung(label, Party.SG_B, Party.SG_A, Kind.IKE, text, seconds)]


def _unseen(label: str, text: str) -> Rung:
    return Rung(label, Party.SG_B, Party.DNS, Kind.UNSEEN, text)


def _here(label: str, text: str, seconds: float, kind: Kind = Kind.LOCAL) -> Rung:
    return Rung(label, Party.SG_A, Party.SG_A, kind, text, seconds)


def _without_answers(rungs: list[Rung]) -> list[Rung]:
    """What SG-A sent after it heard from SG-B last, and before it gave up."""
    heard = max(
        (i for i, r in enumerate(rungs) if r.kind is Kind.IKE and r.begin is Party.SG_B), default=-1
    )
    return [
        replace(rung, answered=False)
        if place > heard and rung.kind is Kind.IKE and rung.begin is Party.SG_A
        else rung
        for place, rung in enumerate(rungs)
    ]


def _tunnel(line: Line) -> tuple[str, ...]:
    how = "ESP in UDP" if line.get("udp") else "ESP"
    pair = f"{host(line.get('source'))} to {host(line.get('destination'))}"
    return (
        f"{how}, {plain(line.get('cipher', '?'))}",
        f"{pair}; SPI in {plain(line.get('spi_in'))}, out {plain(line.get('spi_out'))}",
    )

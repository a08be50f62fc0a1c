"""Which name servers are asked, and what is told of them in status and log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dnsrecords.resolver import system_resolvers
from dnsrecords.upstream import ServerReport, Standing
from oegw.assurance import trust_in
from oegw.environment import UnsuitableBox
from oegw.settings import DnsSettings
from policy.flow import IPAddress


def in_use(dns: DnsSettings) -> tuple[IPAddress, ...]:
    """Those of the configuration, or of the box.

    Raises UnsuitableBox if ``dns.trusted`` names one that is not asked.
    """
    found = dns.resolvers or tuple(system_resolvers())
    for address in dns.trusted:
        if address not in found:
            servers = ", ".join(map(str, found))
            raise UnsuitableBox(
                f"dns.trusted: {address} is not one of the resolvers in use ({servers})"
            )
    return found


def trusted(resolvers: Sequence[IPAddress], dns: DnsSettings) -> list[IPAddress]:
    return [address for address in resolvers if trust_in(address, dns.trusted)[0]]


def status_row(report: ServerReport, dns: DnsSettings, now: float) -> dict[str, Any]:
    """One server in ``oegw status``."""
    last = report.last_answer
    return {
        "address": str(report.address),
        "trusted": report.trusted,
        "why": trust_in(report.address, dns.trusted)[1],
        "standing": report.standing.value,
        "last_answer": None if last is None else round(now - last, 3),
        "timeouts": report.timeouts,
        "smoothed": None if report.smoothed is None else round(report.smoothed, 4),
        "queries": report.queries,
        "answers": report.answers,
        "refused": report.refused,
    }


def in_words(fields: dict[str, Any]) -> str:
    """For the log: what has become of a server."""
    server = fields["server"]
    match Standing(fields["new"]):
        case Standing.DEAD:
            return f"resolver {server} does not answer ({fields['timeouts']} tries in a row)"
        case Standing.SLOW:
            return f"resolver {server} is slow: its answers take {fields['smoothed']:.1f} s"
        case _:
            return f"resolver {server} answers again"

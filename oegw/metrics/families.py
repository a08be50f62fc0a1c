"""From the gateway's answer to families of samples, named as Prometheus has it.  Pure.

Labels have few values, whatever peers do: states, categories, triggers of ours, workers, resolvers
of the configuration; never an address of a peer or a host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oegw.tallies import drops, ways

Row = Mapping[str, Any]
Sample = tuple[tuple[str, ...], float]

STATES = ("potential", "pending", "keyed", "clear", "denied", "expiring")
CATEGORIES = ("opportunistic", "configured")
TRUSTS = ("secure", "insecure", "none")
ASSURANCES = ("configured", "secure", "insecure", "unassured")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.  ``kind``: "gauge" or "counter" (its name ends in ``_total``)."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]
    labels: tuple[str, ...] = ()


def families(answer: Row | None, seconds: float) -> list[Family]:
    """``answer``: to the request for an overview; None if nobody gave one, after ``seconds``."""
    up = Family(
        "oegw_up", "gauge", "Whether the gateway answers.", (((), float(answer is not None)),)
    )
    took = Family(
        "oegw_scrape_duration_seconds", "gauge", "How long it took to ask the gateway.",
        (((), seconds),),
    )  # fmt: skip
    if answer is None:
        return [up, took]
    return [up, took, *_life(answer), *_packets(answer), *_connections(answer), *_keying(answer),
            *_names(answer), *_neighbours(answer)]  # fmt: skip


def _life(answer: Row) -> Iterator[Family]:
    datapath = answer.get("datapath") or {}
    yield Family(
        "oegw_build_info", "gauge", "Always 1; its labels say what runs.",
        (((_text(answer.get("version")), _text(datapath.get("name")),
           _text(datapath.get("core")) if datapath.get("core") else "none"), 1.0),),
        ("version", "datapath", "core"),
    )  # fmt: skip
    yield _gauge("oegw_start_time_seconds", "When the gateway started.", answer.get("started"))
    yield _count(answer, "oegw_reloads_total", "Reloads of the configuration.", "gateway.reloaded")
    yield _count(
        answer, "oegw_reload_failures_total", "Reloads after which the old policy stayed.",
        "gateway.reload_failed",
    )  # fmt: skip
    yield _gauge(
        "oegw_warnings", "Warnings in oegw status, those about firewalls included.",
        len(answer.get("warnings") or ()) + len(answer.get("firewall_gaps") or ()),
    )  # fmt: skip
    yield Family(
        "oegw_worker_restarts_total", "counter", "Restarts of the processes that move packets.",
        tuple(((_text(w.get("name")),), float(w.get("restarts", 0)))
              for w in datapath.get("workers") or ()),
        ("worker",),
    )  # fmt: skip


def _packets(answer: Row) -> Iterator[Family]:
    counters = answer.get("counters") or {}
    moved = ways(counters)
    for place, unit in enumerate(("packets", "bytes")):
        yield Family(
            f"oegw_esp_{unit}_total", "counter", f"Encrypted {unit}, as they are inside of ESP.",
            tuple(((way,), float(moved[way][place])) for way in ("in", "out")), ("direction",),
        )  # fmt: skip
    for place, unit in enumerate(("packets", "bytes")):
        yield Family(
            f"oegw_clear_{unit}_total", "counter", f"Clear {unit} that left outwards.",
            (((), float(moved["clear"][place])),),
        )  # fmt: skip
    yield Family(
        "oegw_drops_total", "counter", "Packets, messages and answers dropped, by place and cause.",
        tuple(sorted((each, float(number)) for each, number in drops(counters).items())),
        ("place", "trigger"),
    )  # fmt: skip
    yield _count(
        answer, "oegw_trapped_packets_total", "Packets without a verdict.", "intercept.trapped"
    )
    yield Family(
        "oegw_tunnel_arrivals_total", "counter", "Packets out of tunnels, by assurance.",
        tuple(((each,), float(counters.get(f"intercept.inbound_{each}", 0)))
              for each in ASSURANCES),
        ("assurance",),
    )  # fmt: skip
    held = answer.get("held") or {}
    yield _gauge("oegw_held_packets", "Packets that wait for a verdict.", held.get("packets"))
    yield _gauge("oegw_held_bytes", "Octets of them.", held.get("bytes"))


def _connections(answer: Row) -> Iterator[Family]:
    totals = answer.get("totals") or {}
    found = totals.get("connections") or {}
    known = {(state, category): 0 for state in STATES for category in CATEGORIES}
    for state, by_category in found.items():
        for category, number in by_category.items():
            known[_text(state), _text(category)] = int(number)
    yield Family(
        "oegw_connections", "gauge", "Connections, by state and category of their rule.",
        tuple((each, float(number)) for each, number in known.items()), ("state", "category"),
    )  # fmt: skip
    trust = totals.get("trust") or {}
    yield Family(
        "oegw_keyed_connections", "gauge", "Connections with a tunnel, by trust in the records.",
        tuple(((each,), float(trust.get(each, 0))) for each in TRUSTS), ("trust",),
    )  # fmt: skip
    yield _gauge(
        "oegw_downgraded_connections", "Connections that are clear and were encrypted last time.",
        totals.get("downgraded"),
    )  # fmt: skip
    yield _gauge("oegw_tunnels", "Tunnels that are up.", totals.get("tunnels"))
    yield _gauge("oegw_keying_channels", "Keying channels (phase 1).", totals.get("channels"))
    counters = answer.get("counters") or {}
    yield Family(
        "oegw_decisions_total", "counter", "Decisions that packets go clear, encrypted, or not.",
        tuple(((each,), float(counters.get(f"verdict.{each}", 0)))
              for each in ("clear", "deny", "encrypt")),
        ("decision",),
    )  # fmt: skip


def _keying(answer: Row) -> Iterator[Family]:
    counters = answer.get("counters") or {}
    yield Family(
        "oegw_ike_messages_total", "counter", "Messages of IKE, retransmissions included.",
        tuple(((way,), float(counters.get(f"ike.{event}", 0)))
              for way, event in (("in", "received"), ("out", "sent"))),
        ("direction",),
    )  # fmt: skip
    for name, text, counter in (
        ("oegw_ike_channels_total", "Keying channels established.", "ike.established"),
        ("oegw_tunnels_keyed_total", "Tunnels that came up.", "tunnel.keyed"),
        ("oegw_tunnels_closed_total", "Tunnels that ended.", "tunnel.closed"),
        ("oegw_negotiation_failures_total", "Negotiations that failed.",
         "gateway.negotiation_failed"),
    ):  # fmt: skip
        yield _count(answer, name, text, counter)
    yield _gauge(
        "oegw_silent_gateways", "Gateways that were silent lately.",
        len(answer.get("silent_gateways") or ()),
    )  # fmt: skip
    yield _gauge(
        "oegw_refused_peers", "Peers refused lately, as oegw status lists them.",
        len(answer.get("refusals") or ()),
    )  # fmt: skip


def _names(answer: Row) -> Iterator[Family]:
    yield _count(answer, "oegw_dns_lookups_total", "Questions to the DNS.", "dns.query")
    yield _count(answer, "oegw_dns_answers_total", "Answers of the DNS.", "dns.answer")
    yield _gauge("oegw_lookups", "Look-ups under way.", answer.get("lookups"))
    servers = [row for row in answer.get("resolvers") or () if isinstance(row, Mapping)]
    yield Family(
        "oegw_resolver_up", "gauge", "Whether a resolver of the configuration answers.",
        tuple(((_text(s.get("address")),), float(s.get("standing") != "dead")) for s in servers),
        ("resolver",),
    )  # fmt: skip
    yield Family(
        "oegw_resolver_response_seconds", "gauge", "How long its answers take, smoothed.",
        tuple(((_text(s.get("address")),), float(s["smoothed"]))
              for s in servers if s.get("smoothed") is not None),
        ("resolver",),
    )  # fmt: skip


def _neighbours(answer: Row) -> Iterator[Family]:
    """The daemons beside the gateway, as far as they are configured."""
    socks, moniker, sst = (answer.get(name) for name in ("socks", "moniker", "sst"))
    if socks:
        running = isinstance(socks.get("under_way"), Mapping)
        yield _gauge("oegw_socks_up", "Whether the SOCKS server answers.", running)
        yield from _by_name(
            "oegw_socks_sessions", "gauge", "Sessions of SOCKS clients.", "stage",
            socks.get("under_way"),
        )  # fmt: skip
        yield from _by_name(
            "oegw_socks_bytes_total", "counter", "Bytes carried for SOCKS clients.", "way",
            socks.get("octets"),
        )  # fmt: skip
    if moniker:
        running = "services" in moniker
        yield _gauge("oegw_moniker_up", "Whether Moniker's daemon answers.", running)
        if running:
            leases = len(moniker.get("leases") or ()) + moniker.get("more_leases", 0)
            yield _gauge("oegw_moniker_services", "Services registered.", moniker["services"])
            yield _gauge("oegw_moniker_leases", "Leases of ports.", leases)
    if sst:
        states: dict[str, int] = {}
        for peer in sst.get("peers") or ():
            states[_text(peer.get("state"))] = states.get(_text(peer.get("state")), 0) + 1
        yield from _by_name(
            "oegw_sst_peers", "gauge", "Gateways with encrypted ports, by state of the path.",
            "state", states,
        )  # fmt: skip
        fates = {
            name.removeprefix("sst.plane."): number
            for name, number in (answer.get("counters") or {}).items()
            if name.startswith("sst.plane.") and name not in _NO_FATES
        }
        yield from _by_name(
            "oegw_sst_packets_total", "counter", "Packets of port encryption, by fate.", "fate",
            fates,
        )  # fmt: skip


_NO_FATES = ("sst.plane.held", "sst.plane.flows")  # these go down, too


def _by_name(
    name: str, kind: str, text: str, label: str, values: Mapping[str, float] | None
) -> Iterator[Family]:
    if values:
        samples = tuple(((_text(each),), float(number)) for each, number in values.items())
        yield Family(name, kind, text, samples, (label,))


def _gauge(name: str, text: str, value: Any) -> Family:
    known = isinstance(value, int | float)
    return Family(name, "gauge", text, (((), float(value)),) if known else ())


def _count(answer: Row, name: str, text: str, counter: str) -> Family:
    number = (answer.get("counters") or {}).get(counter, 0)
    return Family(name, "counter", text, (((), float(number)),))


def _text(value: object) -> str:
    return str(value)

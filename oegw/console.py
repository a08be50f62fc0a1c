"""What the running gateway answers to its operator, over the control socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from oegw import __version__
from oegw.applying import LONGEST_TRIAL, RELOAD_FAILURES, ApplyError
from oegw.connection import Connection, State
from oegw.datapath.interface import Capability, DatapathError, SaKey, Usage, WorkerReport
from oegw.intercept.interface import InterceptError
from oegw.overview import BadWish, Samples, Wanted, wanted
from oegw.portstatus import ports_of, section
from oegw.refusals import Refusal
from oegw.resolvers import status_row
from oegw.sst.interface import SstError
from oegw.watching import filter_of, watched
from policy.flow import Flow

if TYPE_CHECKING:
    from oegw.daemon import Daemon

SHOWN_CLIENTS = 8  # of one connection in the status: a site may have thousands
PROBE_PATIENCE = 90.0  # seconds: longer than all retransmissions to a few silent gateways

Answer = dict[str, Any]


class BadRequest(Exception):  # noqa: N818  (it names the fact)
    """The request can't be understood; the message says which field."""


class Console:
    """Answers one request at a time, each with one or more lines."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._samples = Samples()

    async def answer(self, request: Answer) -> AsyncIterator[Answer]:
        """The lines of the answer; the last has ``"done": True``."""
        if not self._daemon.ready:
            yield {"error": "the gateway is starting", "done": True}
            return
        try:
            match request.get("command"):
                case "status":
                    yield {**await self._status(), "done": True}
                case "overview":
                    yield {**await self._overview(wanted(request)), "done": True}
                case "watch":
                    async for line in watched(self._daemon.trace.listeners, filter_of(request)):
                        yield line
                case "explain":
                    yield {**self._explain(_flow(request)), "done": True}
                case "probe":
                    async for line in self._probe(_flow(request)):
                        yield line
                case "forget":
                    yield {**self._forget(request), "done": True}
                case "close":
                    yield {"closed": self._close(request), "done": True}
                case "reload":
                    self._daemon.applying.meant(_file(request))
                    yield {"notes": await self._daemon.reload(), "done": True}
                case "apply":
                    yield {**await self._apply(request), "done": True}
                case "confirm" if request.get("refuse") is True:
                    await self._daemon.applying.refuse()
                    yield {"done": True}
                case "confirm":
                    await self._daemon.applying.confirm()
                    yield {"done": True}
                case "configuration":
                    yield {**self._daemon.applying.texts(), "done": True}
                case other:
                    raise BadRequest(f"no such command: {other!r}")
        except (BadRequest, BadWish, ApplyError, *RELOAD_FAILURES) as error:
            yield {"error": str(error), "done": True}
        except DatapathError as error:
            yield {"error": f"datapath: {error}", "done": True}

    async def _apply(self, request: Answer) -> Answer:
        seconds = request.get("confirm")
        if seconds is not None and (
            not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_TRIAL
        ):
            raise BadRequest(f"confirm: {seconds!r} is not a number of seconds")
        notes = await self._daemon.applying.apply(_file(request), seconds)
        return {"notes": notes, "trial": self._daemon.applying.row()["state"] == "on trial"}

    async def _status(self) -> Answer:
        daemon = self._daemon
        usage = await daemon.datapath.usage()
        now = time.monotonic()
        ports = section(daemon.sst)
        return {
            **await self._general(now),
            "connections": [
                {**_row(c, usage, now), "ports": ports_of(c, ports)}
                for c in daemon.gateway.connections()
            ],
            "sst": ports and ports.rows,
            "forwarder": daemon.forwarder and daemon.forwarder.snapshot(),
            "moniker": await daemon.moniker.row(),
            "socks": await daemon.socks.row(),
            "channels": [
                {
                    "local": str(c.local.address),
                    "remote": str(c.remote.address),
                    "port": c.remote.port,
                    "identity": None if c.identity is None else str(c.identity),
                    "initiator": c.initiator,
                    "proposal": c.proposal,
                    "age": round(now - (c.established_at or now), 3),
                }
                for c in daemon.endpoint.snapshot().channels
            ],
        }

    async def _overview(self, wanted: Wanted) -> Answer:
        """The same without a row for each connection: totals, and the first few."""
        daemon = self._daemon
        usage = await daemon.datapath.usage()
        now = time.monotonic()
        sums, first = await self._samples.taken(daemon.gateway.connections(), usage, now, wanted)
        answer = await self._general(now)
        answer |= {
            "now": time.time(),
            "moment": now,
            "totals": asdict(sums) | {"channels": len(daemon.endpoint.snapshot().channels)},
            "rows": [
                {**_row(each.connection, usage, now), "rate_in": each.rates[0],
                 "rate_out": each.rates[1]}
                for each in first
            ],
        }  # fmt: skip
        if wanted.neighbours:
            ports = section(daemon.sst)
            answer |= {
                "sst": ports and ports.rows,
                "forwarder": daemon.forwarder and daemon.forwarder.snapshot(),
                "moniker": await daemon.moniker.row(),
                "socks": await daemon.socks.row(),
            }
        return answer

    async def _general(self, now: float) -> Answer:
        """What is not about single connections and channels."""
        daemon = self._daemon
        packets, octets = daemon.gateway.held
        capability = daemon.capability
        counters = dict(daemon.trace.counters)
        unread = []
        counters |= {f"datapath.{k}": v for k, v in (await daemon.datapath.counters()).items()}
        counted = [("intercept", daemon.interception.counters)]
        if daemon.sst is not None:
            counted.append(("sst.plane", daemon.sst.counters))
        for name, count in counted:
            try:
                counters |= {f"{name}.{k}": v for k, v in count().items()}
            except (InterceptError, SstError) as error:  # somebody took its table away, just now
                unread.append(f"packets are not counted: {error}")
        return {
            "version": __version__,
            "pid": daemon.powers.pid,
            "started": daemon.started,
            "identity": daemon.settings.gateway.identity,
            "fqdn": daemon.settings.gateway.fqdn,
            "addresses": [str(a) for a in daemon.environment.addresses],
            "outside": list(daemon.environment.outside),
            "resolvers": [
                status_row(each, daemon.settings.dns, now) for each in daemon.resolver.servers()
            ],
            "datapath": capability and _datapath(capability, daemon.datapath.workers()),
            "interception": {"queue": daemon.interception.queue_kind},
            "nat": [str(by) for by in daemon.gateway.nat.translations],
            "warnings": [
                *daemon.warnings(),
                *daemon.applying.notes(),
                *daemon.standing.warnings(),
                *unread,
            ],
            "standing": daemon.standing.row(),
            "configuration": daemon.applying.row(),
            "refusals": [_refusal(each, now) for each in daemon.gateway.refusals],
            "firewall_gaps": daemon.firewall_gaps,
            "decision_points": daemon.lookups.decision_points(),
            "held": {"packets": packets, "bytes": octets},
            "silent_gateways": {
                str(gateway): round(left, 3)
                for gateway, left in daemon.gateway.silent_gateways(now).items()
            },
            "lookups": daemon.gateway.lookups_under_way,
            "counters": dict(sorted(counters.items())),
            "processes": await daemon.processes(),
        }

    def _explain(self, flow: Flow) -> Answer:
        gateway = self._daemon.gateway
        seen = gateway.nat.seen(flow, gateway.table)
        connection = gateway.find(flow)
        return {
            "rule": seen.rule.name,
            "category": seen.rule.category.value,
            "translated": str(seen.flow.source) if seen.by else None,
            "clients": _clients(connection) if connection else None,
            "state": connection.state.value if connection else State.NONEXISTENT.value,
            "reason": connection.reason if connection else "",
            "encrypts_ports": self._daemon.sst is not None,
        }

    async def _probe(self, flow: Flow) -> AsyncIterator[Answer]:
        daemon = self._daemon
        lines: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(1000)

        def listen(line: Mapping[str, Any]) -> None:
            if not lines.full():
                lines.put_nowait(line)

        daemon.trace.listeners.append(listen)
        started = time.time()
        deadline = time.monotonic() + PROBE_PATIENCE
        try:
            daemon.carry_out(daemon.gateway.probe(flow, time.monotonic()))
            outside = daemon.gateway.nat.seen(flow, daemon.gateway.table).flow
            while True:
                while not lines.empty():
                    step = _step(lines.get_nowait(), outside, started)
                    if step is not None:
                        yield step
                # From here on nothing waits: an event can't slip in between look and sleep.
                connection = daemon.gateway.find(flow)
                over = lines.empty() and (connection is None or not connection.under_way)
                if over or time.monotonic() > deadline:
                    break
                try:
                    async with asyncio.timeout(deadline - time.monotonic()):
                        line = await lines.get()
                except TimeoutError:
                    continue
                step = _step(line, outside, started)
                if step is not None:
                    yield step
        finally:
            daemon.trace.listeners.remove(listen)
        if connection is None:
            rule = daemon.gateway.nat.seen(flow, daemon.gateway.table).rule
            yield {"done": True, "result": rule.category.value, "reason": f"rule {rule.name!r}"}
        else:
            yield {"done": True, "result": connection.state.value, "reason": connection.reason}

    def _close(self, request: Answer) -> int:
        network = _network(request)
        number, commands = self._daemon.gateway.close(network, time.monotonic())
        self._daemon.carry_out(commands)
        return number

    def _forget(self, request: Answer) -> Answer:
        network = _network(request)
        self._daemon.resolver.forget()
        self._daemon.lookups.forget_opinions()
        sst = self._daemon.sst
        hosts = sst.forget(network) if sst is not None else 0
        number, commands = self._daemon.gateway.forget(network, time.monotonic())
        self._daemon.carry_out(commands)
        return {"forgotten": number, "ports_forgotten": hosts}


_STEPS = {
    ("dns", "query", "gateway"): "(5B) TXT look-up",
    ("dns", "answer", "gateway"): "(5C) TXT answer",
    ("dns", "query", "own"): "look-up of our own TXT record",
    ("dns", "answer", "own"): "answer about ourselves, TXT",
    ("dns", "query", "gateway-key"): "look-up of the gateway's TXT record",
    ("dns", "answer", "gateway-key"): "answer about the gateway's TXT record",
    ("decision", "asked", ""): "decision point asked",
    ("decision", "answered", ""): "decision point answered",
    ("dns", "query", "peer"): "look-up of the configured peer",
    ("dns", "answer", "peer"): "answer about it",
    ("ike", "sent", "MM1"): "(5D) main mode, message 1",
    ("ike", "received", "MM2"): "(5E1) message 2",
    ("ike", "sent", "MM3"): "(5E2) message 3",
    ("ike", "received", "MM4"): "(5E3) message 4",
    ("ike", "sent", "MM5"): "(5E4) message 5, our identity",
    ("ike", "received", "MM6"): "(5E5) message 6, the peer's identity",
    ("ike", "established", ""): "(5E) keying channel established",
    ("ike", "sent", "QM1"): "(5G1) tunnel proposed",
    ("ike", "received", "QM2"): "(5G4) tunnel agreed",
    ("ike", "sent", "QM3"): "(5G4) confirmed",
    ("sa", "installed", ""): "(5H) security association installed",
    ("tunnel", "keyed", ""): "(6) tunnel carries traffic",
    ("connection", "state", ""): "state",
    ("connection", "trust", ""): "records name the gateway",
    ("gateway", "malformed_record", ""): "malformed record",
    ("gateway", "negotiation_failed", ""): "negotiation failed",
}
_UNTOLD = ("time", "category", "event", "purpose", "message")


def _step(line: Mapping[str, Any], flow: Flow, started: float) -> Answer | None:
    """A line of the trace as a step of the probe; None if it is about another pair."""
    for side, address in (("source", flow.source), ("destination", flow.destination)):
        network = line.get(side) if line["category"] in ("connection", "tunnel") else None
        if isinstance(network, IPv4Network | IPv6Network) and address not in network:
            return None
    kind = str(line.get("purpose") or line.get("message") or "")
    name = _STEPS.get((line["category"], line["event"], kind))
    if name is None:
        return None
    name = name.replace("TXT", str(line.get("rdtype", "TXT")))
    detail = " ".join(
        f"{k}={round(v, 6) if isinstance(v, float) else v}"
        for k, v in line.items()
        if k not in _UNTOLD and v not in (None, "")
    )
    seconds = round(line["time"] - started, 6)
    return {"step": name, "seconds": seconds, "detail": detail, "line": dict(line)}


def _network(request: Answer) -> IPv4Network | IPv6Network:
    text = request.get("destination")
    try:
        return ip_network(str(text), strict=False)
    except ValueError:
        raise BadRequest(f"destination: {text!r} is neither an address nor a prefix") from None


def _flow(request: Answer) -> Flow:
    def number(field: str, largest: int) -> int | None:
        value = request.get(field)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
            raise BadRequest(f"{field}: {value!r} is not a number from 0 to {largest}")
        return value

    try:
        source = ip_address(str(request.get("source")))
        destination = ip_address(str(request.get("destination")))
    except ValueError as error:
        raise BadRequest(f"source, destination: {error}") from None
    if source.version != destination.version:
        raise BadRequest("source and destination are of different address families")
    port = number("destination_port", 65535)
    if port is None:
        port = number("port", 65535)
    return Flow(
        source,
        destination,
        number("protocol", 255) or 0,
        number("source_port", 65535),
        port,
    )


def _datapath(capability: Capability, workers: Iterable[WorkerReport]) -> Answer:
    told: Answer = {"name": capability.name, "reason": capability.reason}
    if not capability.core:  # the kernel does it all
        return told
    reports = list(workers)
    # After a fallback it is no more what it was at the start.
    cores = {(each.core, each.core_reason) for each in reports}
    start = capability.core, capability.core_reason
    core, reason = cores.pop() if len(cores) == 1 else start
    libraries = {each.libraries for each in reports if each.libraries}
    by = libraries.pop() if len(libraries) == 1 else capability.libraries
    lost = {
        name: f"{worker.name}: {why}"
        for worker in reversed(reports)
        for name, why in worker.without
    }
    return told | {
        "core": core,
        "core_reason": reason,
        "libraries": [{"work": work, "by": name, "reason": why} for work, name, why in by],
        "offloads": [
            {
                "name": name,
                "used": used and name not in lost,
                "reason": lost.get(name, reason) if used else reason,
            }
            for name, used, reason in capability.offloads
        ],
        "workers_per_direction": capability.workers,
        "workers": [asdict(worker) for worker in reports],
    }


def _refusal(refusal: Refusal, now: float) -> Answer:
    return {
        "peer": str(refusal.peer),
        "address": str(refusal.address),
        "what": refusal.what,
        "reason": refusal.reason,
        "times": refusal.times,
        "age": round(now - refusal.at, 3),
    }


def _row(connection: Connection, usage: dict[SaKey, Usage], now: float) -> Answer:
    tunnel = connection.live_tunnel
    nothing = Usage(0, 0, None)
    inbound = [usage.get(t.inbound, nothing) for t in connection.tunnels.values() if t.inbound]
    outbound = [usage.get(t.outbound, nothing) for t in connection.tunnels.values() if t.outbound]
    selectors = connection.selectors
    return {
        "source": str(selectors.local),
        "destination": str(selectors.remote),
        "protocol": selectors.protocol or None,
        "port": selectors.remote_port or None,
        "state": connection.state.value,
        "standing": connection.standing.value,
        "rule": connection.rule.name,
        "category": connection.rule.category.value,
        "gateway": str(tunnel.gateway) if tunnel else None,
        "trust": connection.trust.value if connection.trust else None,
        "since": round(now - connection.since, 3),
        "lifespan_left": None if connection.expires is None else round(connection.expires - now, 3),
        "packets_in": sum(u.packets for u in inbound),
        "bytes_in": sum(u.bytes for u in inbound),
        "packets_out": sum(u.packets for u in outbound),
        "bytes_out": sum(u.bytes for u in outbound),
        "spi_in": f"{tunnel.inbound.spi:08x}" if tunnel and tunnel.inbound else None,
        "spi_out": f"{tunnel.outbound.spi:08x}" if tunnel and tunnel.outbound else None,
        "cipher": tunnel.cipher if tunnel else None,
        "sealed_inside": tunnel.sealed if tunnel else None,
        "sealed_outside": tunnel.shielded if tunnel else None,
        "unsealed": tunnel.unsealed or None if tunnel else None,
        "encapsulation": ("udp" if tunnel.udp else "esp") if tunnel else None,
        "encapsulation_reason": tunnel.encapsulation.value
        if tunnel and tunnel.encapsulation
        else None,
        "tunnels": sum(t.up for t in connection.tunnels.values()),
        "encrypted_before": connection.encrypted_before or None,
        "reason": connection.reason,
        "clients": _clients(connection),
    }


def _file(request: Answer) -> str | None:
    """The configuration that a command means, if it says so."""
    file = request.get("file")
    return file if isinstance(file, str) else None


def _clients(connection: Connection) -> Answer | None:
    """The hosts behind a connection that go by its address; None if there are no others."""
    clients = connection.clients()
    if not clients:
        return None
    return {"number": len(clients), "first": [str(c) for c in clients[:SHOWN_CLIENTS]]}

"""The status of a running gateway, as text for people; the JSON form needs no rendering."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import Any

SHOWN_RIGHTS = 3  # names of capabilities; of whoever has more, their number
WIDTH = 100  # columns; an IPv6 pair may need more
_NARROW = 18  # an IPv4 prefix, at its longest

Row = dict[str, Any]


def render(status: Row) -> str:
    """The whole answer to ``status`` in lines of at most ``WIDTH`` columns, as far as it fits."""
    connections = status.get("connections") or []
    channels = status.get("channels") or []
    lines = [*_head(status), ""]
    lines += _connections(connections)
    lines += ["", *_channels(channels)]
    lines += ports_section(status.get("sst"))
    lines += forwarder_section(status.get("forwarder"))
    lines += moniker_section(status.get("moniker"))
    lines += socks_section(status.get("socks"))
    lines += _refusals(status.get("refusals") or [])
    counters = status.get("counters") or {}
    if counters:
        lines += ["", "Counters"]
        width = max(len(plain(name)) for name in counters)
        lines += [f"  {plain(name):<{width}}  {value:>10}" for name, value in counters.items()]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(status: Row) -> list[str]:
    held = status.get("held") or {}
    datapath = status.get("datapath") or {}
    queue = (status.get("interception") or {}).get("queue")
    addresses = ", ".join(plain(a) for a in status.get("addresses") or [])
    started = status.get("started")
    since = ""
    if isinstance(started, int | float):
        since = f", up since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(started))}"
    facts = [
        ("Identity", _identity(status)),
        ("Addresses", addresses or "-"),
        ("Outside", ", ".join(plain(o) for o in status.get("outside") or []) or "-"),
        *_datapath(datapath),
        ("Interception", plain(queue or "-")),
        *(("Decisions by", _point(row)) for row in status.get("decision_points") or []),
        *(("NAT", plain(by)) for by in status.get("nat") or []),
        *(("Warning", plain(warning)) for warning in status.get("warnings") or []),
        *(("Firewall", f"warning: {plain(gap)}") for gap in status.get("firewall_gaps") or []),
        (
            "Under way",
            f"{status.get('lookups', 0)} look-ups; "
            f"{held.get('packets', 0)} packets held ({octets(held.get('bytes', 0))})",
        ),
    ]
    silent = status.get("silent_gateways") or {}
    if silent:
        tried_last = ", ".join(f"{plain(g)} for {span(left)}" for g, left in silent.items())
        facts.append(("Silent", f"tried last: {tried_last}"))
    head = f"oegw {plain(status.get('version', '?'))}, process {status.get('pid', '?')}{since}"
    lines = [head]
    if status.get("processes"):
        facts.append(("Processes", _processes(status["processes"])))
    facts += [("Resolver", _resolver(row)) for row in status.get("resolvers") or []]
    for name, value in facts:
        lines.append(fill(value, WIDTH, initial_indent=f"{name:<14}", subsequent_indent=" " * 14))
    return lines


def _datapath(datapath: Row) -> list[tuple[str, str]]:
    """What encrypts, and of our own: core, processes, offloads, each with its reason."""
    facts = [("Datapath", _with_reason(datapath.get("name"), datapath.get("reason")))]
    if datapath.get("core"):
        facts.append(("Core", _with_reason(datapath["core"], datapath.get("core_reason"))))
    facts += [
        (
            "Library",
            f"{plain(row.get('work', '?'))} by {_with_reason(row.get('by'), row.get('reason'))}",
        )
        for row in datapath.get("libraries") or []
    ]
    workers = datapath.get("workers") or []
    if workers:
        told = "; ".join(_worker(row, datapath.get("core")) for row in workers)
        facts.append(("Workers", f"{datapath.get('workers_per_direction')} each way: {told}"))
    facts += [
        (
            "Offload",
            f"{plain(row.get('name', '?'))} {'on' if row.get('used') else 'off'}"
            + (f" ({plain(row['reason'])})" if row.get("reason") else ""),
        )
        for row in datapath.get("offloads") or []
    ]
    return facts


def _processes(rows: list[Row]) -> str:
    """Who has which rights; most have none."""
    told: dict[str, list[str]] = {}
    for row in rows:
        held = row.get("capabilities") or []
        rights = f"{len(held)} capabilities" if len(held) > SHOWN_RIGHTS else ", ".join(held)
        who = f"as {plain(row.get('user', '?'))} with {plain(rights) or 'no capability'}"
        told.setdefault(who, []).append(plain(row.get("name", "?")))
    return "; ".join(f"{', '.join(names)} {who}" for who, names in told.items())


def _worker(row: Row, core: object) -> str:
    """One process, and what is unusual about it."""
    words = f"{plain(row.get('name', '?'))} "
    words += "is being started" if row.get("pid") is None else f"process {plain(row['pid'])}"
    if row.get("restarts"):
        times = "once" if row["restarts"] == 1 else f"{plain(row['restarts'])} times"
        words += f", restarted {times}"
    if row.get("core") != core:
        words += f", {_with_reason(row.get('core'), row.get('core_reason'))}"
    return words


def _identity(status: Row) -> str:
    if status.get("identity"):
        return plain(status["identity"])
    fqdn = status.get("fqdn")
    return "the address in use" + (f", or @{plain(fqdn)}" if fqdn else "")


def _refusals(refusals: Sequence[Row]) -> list[str]:
    if not refusals:
        return []
    lines = ["", f"Refused lately: {len(refusals)}"]
    for row in refusals:
        peer, address = plain(row.get("peer", "?")), plain(row.get("address", "?"))
        where = "" if address == peer else f" at {address}"
        times = f", {row['times']} times" if row.get("times", 1) > 1 else ""
        head = f"{peer}{where}: {plain(row.get('what', '?'))}, {span(row.get('age'))} ago{times}"
        lines.append(fill(head, WIDTH, initial_indent="  ", subsequent_indent="    "))
        reason = plain(row.get("reason", ""))
        lines.append(fill(reason, WIDTH, initial_indent="    ", subsequent_indent="    "))
    return lines


def _resolver(row: Row) -> str:
    """One server in one line: whether its word counts, and how it does."""
    words = [_with_reason("trusted" if row.get("trusted") else "not trusted", row.get("why"))]
    standing = plain(row.get("standing", "?"))
    if row.get("smoothed") is not None:
        standing += f", answers in {row['smoothed'] * 1000:.0f} ms"
    words.append(standing)
    if row.get("queries") and row.get("last_answer") is None:
        words.append("no answer yet")
    elif row.get("last_answer") is not None:
        words.append(f"last answer {span(row['last_answer'])} ago")
    if row.get("timeouts"):
        words.append(f"{row['timeouts']} time-outs in a row")
    if row.get("refused"):
        words.append(f"{row['refused']} responses that were not to our queries, or unreadable")
    return f"{plain(row.get('address', '?'))}: {'; '.join(words)}"


def _point(row: Row) -> str:
    """One decision point in one line: where it is, and how it does."""
    words = [f"{plain(row.get('name', '?'))} ({plain(row.get('url', '?'))})"]
    if row.get("answers"):
        words.append(f"answers: {row['answers']}")
    if row.get("reason"):
        count = row.get("failures", 1)
        words.append(f"{count} failures in a row, the last {plain(row['reason'])}")
    return "; ".join(words)


def _with_reason(name: object, reason: object) -> str:
    if name is None:
        return "-"
    return f"{plain(name)} ({plain(reason)})" if reason else plain(name)


def _connections(connections: Sequence[Row]) -> list[str]:
    if not connections:
        return ["No connections."]
    head = ["STATE", "SOURCE", "DESTINATION", "FOR", "GATEWAY", "AGE", "LEFT", "IN", "OUT"]
    rows = [
        [
            plain(row.get("state", "?")),
            host(row.get("source")),
            host(row.get("destination")),
            traffic(row.get("protocol"), row.get("port")),
            plain(row.get("gateway") or "-"),
            span(row.get("since")),
            span(row.get("lifespan_left")),
            octets(row.get("bytes_in", 0)),
            octets(row.get("bytes_out", 0)),
        ]
        for row in connections
    ]
    details = [_detail(row) for row in connections]
    lines = [f"Connections: {len(connections)}"]
    if all(len(row[1]) <= _NARROW and len(row[2]) <= _NARROW for row in rows):
        table = columns([head, *rows], right=(5, 6, 7, 8))
        lines.append(table[0])
        for line, detail in zip(table[1:], details, strict=True):
            lines += [line, *detail]
        return lines
    # Long addresses: the pair gets a line of its own.
    narrow = [[row[0], *row[3:]] for row in ([head[0], *head[1:]], *rows)]
    table = columns(narrow, right=(3, 4, 5, 6))
    lines.append(table[0])
    for row, line, detail in zip(rows, table[1:], details, strict=True):
        lines += [line, f"    {row[1]} -> {row[2]}", *detail]
    return lines


def _detail(row: Row) -> list[str]:
    parts = [f"rule {plain(row.get('rule', '?'))} ({plain(row.get('category', '?'))})"]
    if row.get("standing", row.get("state")) != row.get("state"):
        parts.append(f"still {plain(row['standing'])}")
    if row.get("trust"):
        parts.append(f"DNS {plain(row['trust'])}")
    if row.get("cipher"):
        how = {"udp": " in UDP", "esp": " without UDP"}.get(row.get("encapsulation", ""), "")
        why = f" ({plain(row['encapsulation_reason'])})" if row.get("encapsulation_reason") else ""
        parts.append(plain(row["cipher"]) + how + why)
    parts += _ports(row)
    if row.get("spi_in") or row.get("spi_out"):
        parts.append(
            f"SPI in {plain(row.get('spi_in') or '-')} out {plain(row.get('spi_out') or '-')}"
        )
    if row.get("reason") and row["reason"] != row.get("gateway"):
        parts.append(plain(row["reason"]))
    if row.get("ports") and not row.get("cipher"):  # a tunnel has said it above
        parts.append(plain(row["ports"]))
    if clients := row.get("clients"):
        parts.append(clients_text(clients))
    if row.get("encrypted_before"):
        parts.append(f"LAST TIME IT WAS ENCRYPTED, by {plain(row['encrypted_before'])}")
    indent = " " * 4
    return fill(
        ", ".join(parts), WIDTH, initial_indent=indent, subsequent_indent=indent
    ).splitlines()


def _ports(row: Row) -> list[str]:
    """Where the ports of a tunnel's packets are encrypted, or why they are not."""
    parts = []
    if row.get("sealed_inside"):
        parts.append("ports sealed inside")
    if row.get("sealed_outside"):
        parts.append("IKE and ESP in UDP with sealed ports")
    if row.get("unsealed"):
        parts.append(f"PORTS NOT SEALED: {plain(row['unsealed'])}")
    return parts


def ports_section(sst: Row | None) -> list[str]:
    """Port encryption: the ways to peers' gateways, tunnels, and what could not be sealed."""
    if not sst:
        return []
    own = ", ".join(plain(key) for key in sst.get("own_keys") or []) or "none"
    lines = ["", f"Port encryption: own keys {own}; {sst.get('held', 0)} packets held"]
    peers = sst.get("peers") or []
    if peers:
        rows = [["PEER", "PATH", "SINCE", "PROBED", "EPOCH", "KEY FROM", "DNS"]]
        rows += [
            [
                plain(row.get("gateway", "?")),
                plain(row.get("state", "?")),
                span(row.get("since")),
                span(row.get("last_probe")),
                "-" if row.get("epoch") is None else plain(row["epoch"]),
                plain(row.get("source", "?")),
                plain(row.get("trust", "?")),
            ]
            for row in peers
        ]
        lines += [f"  {line}" for line in columns(rows, right=(2, 3, 4))]
    for row in sst.get("tunnels") or []:
        state = "both ways" if row.get("sending") else "only what comes"
        pair = f"{host(row.get('local'))} -> {host(row.get('remote'))}"
        lines.append(f"  inside the tunnel {pair}: {state}, key from IKE")
    for local, remote in sst.get("shielded") or []:
        lines.append(f"  around IKE and ESP: {plain(local)} -> {plain(remote)}")
    for row in sst.get("pairs") or []:
        if not row.get("sealed"):
            pair = f"{plain(row.get('local'))} -> {plain(row.get('remote'))}"
            what = "dropped, ports can't be sealed" if row.get("dropped") else "ports not sealed"
            text = f"{pair}: {what}: {plain(row.get('reason', '?'))}"
            lines.append(fill(text, WIDTH, initial_indent="  ", subsequent_indent="    "))
    return lines


def forwarder_section(forwarder: Row | None) -> list[str]:
    """The DNS forwarder: what it was asked, and whether it could answer."""
    if not forwarder:
        return []
    counts = ", ".join(
        f"{plain(forwarder.get(name, 0))} {name.replace('_', ' ')}"
        for name in ("questions", "answers", "failures", "names_with_keys")
    )
    return [
        "",
        f"DNS forwarder: {plain(forwarder.get('address', '?'))} "
        f"port {plain(forwarder.get('port', '?'))}: {counts}",
    ]


def moniker_section(moniker: Row | None) -> list[str]:
    """Moniker's daemon in one line; `oegw moniker status` has the rest."""
    if not moniker:
        return []
    if "services" not in moniker:
        return ["", f"Moniker: does not answer: {plain(moniker.get('reason', '?'))}"]
    leases = len(moniker.get("leases") or ()) + moniker.get("more_leases", 0)
    return [
        "",
        f"Moniker: process {plain(moniker.get('pid', '?'))}, "
        f"port {plain(moniker.get('port', '?'))}: {plain(moniker['services'])} services of "
        f"{plain(moniker.get('applications', '?'))} applications, {leases} leases",
    ]


def socks_section(socks: Row | None) -> list[str]:
    """The SOCKS server in one line; `oegw socks status` has the rest."""
    if not socks:
        return []
    under_way = socks.get("under_way")
    if not isinstance(under_way, dict):
        return ["", f"SOCKS: does not answer: {plain(socks.get('reason', '?'))}"]
    listeners = socks.get("listeners") or ()
    at = sum(bool(row.get("listening", True)) for row in listeners)
    counted = ", ".join(
        f"{plain(under_way.get(name, 0))} {name}" for name in ("relayed", "binding", "associations")
    )
    moved = octets(sum((socks.get("octets") or {}).values()))
    pid = plain(socks.get("pid", "?"))
    return ["", f"SOCKS: process {pid}, {at} of {len(listeners)} listeners: {counted}, {moved}"]


def clients_text(clients: Row) -> str:
    """Who shares a connection: the first few hosts, and how many more."""
    first = [plain(client) for client in clients.get("first") or ()]
    more = clients.get("number", len(first)) - len(first)
    return f"for {', '.join(first)}" + (f" and {more} more" if more > 0 else "")


def _channels(channels: Sequence[Row]) -> list[str]:
    if not channels:
        return ["No keying channels."]
    rows = [["REMOTE", "LOCAL", "IDENTITY", "ROLE", "AGE"]]
    for channel in channels:
        rows.append(
            [
                _remote(channel),
                plain(channel.get("local", "?")),
                plain(channel.get("identity") or "-"),
                "initiator" if channel.get("initiator") else "responder",
                span(channel.get("age")),
            ]
        )
    table = columns(rows, right=(4,))
    lines = [f"Keying channels: {len(channels)}", table[0]]
    for line, channel in zip(table[1:], channels, strict=True):
        lines += [line, f"    {plain(channel.get('proposal') or 'being negotiated')}"]
    return lines


def _remote(channel: Row) -> str:
    """The far gateway; with its port where that is not IKE's own."""
    address, port = plain(channel.get("remote", "?")), channel.get("port")
    if port in (None, 500):
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Rows of cells as aligned lines, two blanks between; ``right`` are flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    flush = set(right)
    return [
        "  ".join(
            cell.rjust(width) if i in flush else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def plain(value: object) -> str:
    """Text without what could steer a terminal: much of it comes from strangers."""
    return "".join(c if c.isprintable() else "?" for c in str(value))


def host(value: object) -> str:
    """A prefix; that of a single host without its length."""
    text = plain(value)
    suffix = "/128" if ":" in text else "/32"
    return text.removesuffix(suffix)


def traffic(protocol: object, port: object) -> str:
    """What a connection is for: ``any``, ``tcp``, ``tcp/80``."""
    if not protocol:
        return "any"
    names = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
    name = names.get(protocol, plain(protocol)) if isinstance(protocol, int) else plain(protocol)
    return f"{name}/{port}" if port else name


def span(seconds: object) -> str:
    """A length of time in at most five characters: ``0.5s``, ``59s``, ``12m``, ``30h``, ``9d``."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return "-"
    left = max(0.0, seconds)
    if left < 10:
        return f"{left:.1f}s"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if left < limit:
            return f"{left / unit:.0f}{name}"
    return f"{left / 86400:.0f}d"


def octets(number: object) -> str:
    """An amount of octets in at most seven characters: ``812``, ``1.2k``, ``34M``."""
    if not isinstance(number, int | float) or isinstance(number, bool):
        return "-"
    size = float(number)
    for unit in ("", "k", "M", "G", "T"):
        if size < 1000 or unit == "T":
            break
        size /= 1000
    if not unit:
        return f"{size:.0f}"
    return f"{size:.1f}{unit}" if size < 10 else f"{size:.0f}{unit}"

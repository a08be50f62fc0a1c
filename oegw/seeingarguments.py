"""What can be written behind `oegw top`, `oegw watch` and `oegw metrics`, and the help of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from oegw.configfile import BadValue, network_from
from oegw.overview import ORDERS
from policy.flow import IPAddress

Add = Callable[..., argparse.ArgumentParser]
AddOption = Callable[..., None]

METRICS_PORT = 24500  # our choice: IANA has assigned it to nobody, and Prometheus' range is full
METRICS_LISTEN = f"127.0.0.1:{METRICS_PORT}"
FASTEST = 0.2  # seconds between two looks


def add_seeing(add: Add, add_config: AddOption, add_socket: AddOption) -> None:
    """``add`` makes the parser of a command; the others give it ``--config`` and ``--socket``."""
    top = add(
        "top",
        "Watch the running gateway in the terminal: packets and octets each second, connections "
        "with their rates. Keys: r s a o order, / filter, + - pace, arrows scroll, q quits.",
        "oegw top",
        "oegw top --order age --filter 192.2.0.66",
        "oegw top --once | head",
    )
    add_config(top)
    add_socket(top)
    top.add_argument(
        "--interval", metavar="SECONDS", type=_seconds, default=1.0, help="between two looks; 1"
    )
    top.add_argument("--order", choices=ORDERS, default="rate", help="what is first; default rate")
    top.add_argument("--filter", metavar="TEXT", default="", help="only connections that have it")
    top.add_argument(
        "--once", action="store_true", help="two looks, one page without colours, and end"
    )

    watch = add(
        "watch",
        "Print what the running gateway does as it happens, a line of JSON for each event of its "
        "trace, until Ctrl-C. The gateway waits for no reader: what one is too slow for is left "
        "out, and a line says how much.",
        "oegw watch",
        "oegw watch --category tunnel,connection --address 192.2.0.66",
        "oegw watch --category verdict | jq -c '[.event, .source, .destination, .reason]'",
    )
    add_config(watch)
    add_socket(watch)
    watch.add_argument(
        "--category",
        metavar="NAME,...",
        type=_names,
        action="extend",
        default=[],
        help="only events of these, as dns, ike, tunnel, connection, verdict, intercept, gateway",
    )
    watch.add_argument(
        "--address", metavar="ADDRESS", type=_network, help="only events with it; may be a prefix"
    )

    metrics = add(
        "metrics",
        "Serve the running gateway's numbers to Prometheus over HTTP, until SIGTERM or SIGINT: a "
        "process of its own, which asks the gateway at each scrape.",
        "oegw metrics",
        "oegw metrics --listen '[::1]:24500'",
        "oegw metrics --once",
    )
    add_config(metrics)
    add_socket(metrics)
    metrics.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        type=listen_address,
        default=METRICS_LISTEN,
        help=f"default {METRICS_LISTEN}",
    )
    metrics.add_argument("--once", action="store_true", help="print them, and end")


def add_svg(probe: argparse.ArgumentParser) -> None:
    """What `oegw probe` has for who wants to see."""
    probe.add_argument(
        "--ladder", action="store_true", help="draw the steps as a ladder at the end"
    )
    probe.add_argument("--svg", metavar="FILE", type=Path, help="and as a picture, in FILE")


def listen_address(text: str) -> tuple[IPAddress, int]:
    """``127.0.0.1:24500`` or ``[::1]:24500``."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(bare)
    except ValueError:
        address = None
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if not colon or address is None or (address.version == 6) == (bare == host):
        raise argparse.ArgumentTypeError(f"{text!r} is not ADDRESS:PORT, as {METRICS_LISTEN}")
    if not digits or not 0 < int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"{port[:20]!r} is not a port within 1 to 65535")
    return address, int(port)


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if not names:
        raise argparse.ArgumentTypeError("names are missing")
    return names


def _network(text: str) -> str:
    try:
        return str(network_from(text))
    except BadValue as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not FASTEST <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not seconds within {FASTEST:g} to 3600")
    return seconds

"""What can be written behind `oegw socks`, and the help that explains it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oegw.socks5 import Proxy

Add = Callable[..., argparse.ArgumentParser]
AddConfig = Callable[..., None]


def add_socks(add: Add, add_config: AddConfig, parser_class: Any) -> None:
    """The group ``oegw socks``; without a command of it the state is shown.

    ``add`` makes the parser of a command; ``add_config`` gives it the option ``--config``.
    """
    socks = add(
        "socks",
        "SOCKS: IPv4 and IPv6 translated by the gateway. Alone it says what the server of this "
        "host does.",
        "oegw socks",
        "oegw socks connect --proxy gateway bob.example 22",
        "oegw socks resolve --proxy gateway bob.example",
    )
    add_config(socks)
    group = socks.add_subparsers(metavar="COMMAND", parser_class=parser_class)

    def command(name: str, text: str, *examples: str) -> argparse.ArgumentParser:
        return add(f"socks {name}", text, *examples, group=group)

    connect = command(
        "connect",
        "Connect standard input and output to a host's port by way of a SOCKS server, as ssh's "
        "ProxyCommand wants it. The server looks up the host's name.",
        "ssh -o ProxyCommand='oegw socks connect --proxy gateway %h %p' bob.example",
        "ssh -o ProxyUseFdpass=yes -o ProxyCommand='oegw socks connect --pass-fd %h %p' bob",
        "oegw socks connect starwars.theforce.net.mon",
    )
    _add_proxy(connect)
    connect.add_argument("host", metavar="HOST", help="name or address")
    connect.add_argument(
        "port",
        metavar="PORT",
        type=_port,
        nargs="?",
        default=0,
        help="not needed where HOST is a service's name, whose port only its gateway knows",
    )
    connect.add_argument(
        "--pass-fd",
        action="store_true",
        help="hand the connection itself to the program that started us, over standard output "
        "(ssh's ProxyUseFdpass), and end",
    )

    resolve = command(
        "resolve",
        "Ask a SOCKS server for the addresses of a name, or the name of an address: it asks the "
        "DNS, not this host. Needs a server with the extensions, as oegw's. The exit code is 1 if "
        "there is none.",
        "oegw socks resolve --proxy gateway bob.example",
        "oegw socks resolve -6 bob.example",
        "oegw socks resolve 192.2.0.66",
    )
    _add_proxy(resolve)
    resolve.add_argument("what", metavar="NAME|ADDRESS")
    family = resolve.add_mutually_exclusive_group()
    for number in (4, 6):
        family.add_argument(
            f"-{number}",
            dest="families",
            action="store_const",
            const=(number,),
            default=(6, 4),
            help=f"the IPv{number} address only",
        )

    serve = command(
        "serve",
        "Run the SOCKS server until SIGTERM or SIGINT; SIGHUP reads users, rules and limits again. "
        "`oegw run` starts it itself if the configuration has [socks].",
        "oegw socks serve",
    )
    add_config(serve, inherited=True)

    status = command("status", "Show what the server of this host does.", "oegw socks status")
    add_config(status, inherited=True)
    status.add_argument("--json", action="store_true", help="for programs")

    command(
        "password",
        "Read a password from the terminal, or a line of standard input, and print its hash. "
        "It is the password of a [[socks.user]] in the configuration.",
        "oegw socks password",
    )


def _add_proxy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--proxy",
        metavar="SERVER",
        type=_proxy,
        default=Proxy(),
        help="HOST, HOST:PORT or USER@HOST:PORT; default: port 1080 of this host",
    )
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        type=Path,
        help="the user's password is its first line",
    )
    parser.add_argument(
        "--optimistic",
        action="store_true",
        help="wait for nothing before the request: quicker, but not every server bears it; oegw's "
        "does",
    )
    parser.add_argument(
        "--seconds", metavar="N", type=_seconds, default=30, help="for all of it; default 30"
    )


def _proxy(text: str) -> Proxy:
    try:
        proxy = Proxy.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if proxy.password is not None:
        raise argparse.ArgumentTypeError(
            "other users of this host can read a command line: --password-file says the password"
        )
    return proxy


def _whole(text: str, low: int, high: int) -> int:
    if len(text) > 9 or not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number within {low} to {high}")
    return int(text)


def _port(text: str) -> int:
    return _whole(text, 1, 65535)


def _seconds(text: str) -> int:
    return _whole(text, 1, 3600)

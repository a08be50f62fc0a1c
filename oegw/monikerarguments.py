"""What can be written behind `oegw moniker`, and the help that explains it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from oegw.configfile import BadValue
from oegw.moniker.names import InvalidName, ServiceName, canonical

Add = Callable[..., argparse.ArgumentParser]
AddConfig = Callable[..., None]


def add_moniker(add: Add, add_config: AddConfig, parser_class: Any) -> None:
    """The group ``oegw moniker``; without a command of it the state is shown.

    ``add`` makes the parser of a command; ``add_config`` gives it the option ``--config``.
    """
    moniker = add(
        "moniker",
        "Services by name, ports at random. Alone it says what the daemon of this host does.",
        "oegw moniker",
        "oegw moniker run starwars -- starwars-server --port {port}",
        "oegw moniker connect theforce.net starwars",
    )
    add_config(moniker)
    group = moniker.add_subparsers(metavar="COMMAND", parser_class=parser_class)

    def command(name: str, text: str, *examples: str) -> argparse.ArgumentParser:
        each = add(f"moniker {name}", text, *examples, group=group)
        add_config(each, inherited=True)
        return each

    command(
        "serve",
        "Run the daemon, which knows the services of this host and answers for their ports, until "
        "SIGTERM or SIGINT; SIGHUP reads rules, grants and hosts again. `oegw run` starts it "
        "itself if the configuration has [moniker].",
        "oegw moniker serve",
    )

    status = command("status", "Show what the daemon of this host does.", "oegw moniker status")
    status.add_argument("--json", action="store_true", help="for programs")

    query = command(
        "query",
        "Ask a host's daemon where a service is. This shows the port, which programs that use the "
        "library never see. The exit code is 1 if there is no such service.",
        "oegw moniker query theforce.net starwars",
        "oegw moniker query ietf.org 'reynolds::http@>=1,<3' --json",
    )
    _add_host(query)
    _add_name(query)
    _add_transport(query)
    query.add_argument("--json", action="store_true", help="for programs")

    listing = command("list", "List the services of this host.", "oegw moniker list --json")
    listing.add_argument("--json", action="store_true", help="for programs")

    connect = command(
        "connect",
        "Connect standard input and output to a service, as ssh's ProxyCommand wants it.",
        "ssh -o ProxyCommand='oegw moniker connect %h ssh' theforce.net",
        "ssh -o ProxyUseFdpass=yes -o ProxyCommand='oegw moniker connect --pass-fd %h ssh' bob",
    )
    _add_host(connect)
    _add_name(connect)
    connect.add_argument(
        "--pass-fd",
        action="store_true",
        help="hand the connection itself to the program that started us, over standard output "
        "(ssh's ProxyUseFdpass), and end",
    )

    run = command(
        "run",
        "Run a server under a name, on a port at random: {port} in its arguments becomes the port. "
        "The service is registered once the server listens, and ends with it. The exit code is the "
        "command's, 128 and the number of a signal that ended it, 127 if there is no such command, "
        "126 if it can't be executed.",
        "oegw moniker run http -- python3 -m http.server {port}",
        "oegw moniker run --export ssh -- /usr/sbin/sshd -D -p {port}",
    )
    run.usage = "oegw moniker run [-h] [options] NAME -- COMMAND ..."
    _add_name(run, "what it is called, perhaps in a namespace: http, http@2, alice::http")
    run.add_argument("--udp", action="store_true", help="the server's transport; default: TCP")
    run.add_argument(
        "--unheld",
        action="store_true",
        help="don't hold the port until the server listens: for one that does not set "
        "SO_REUSEADDR; always so with --udp",
    )
    run.add_argument(
        "--weight", metavar="N", type=_number(1, 1000), default=100,
        help="among instances of the same name and version, 1 to 1000; default 100",
    )  # fmt: skip
    run.add_argument(
        "--sst", action="store_true", help="clients shall encrypt the ports of their connections"
    )
    run.add_argument("--export", action="store_true", help="may be told by DNS-SD")
    run.add_argument(
        "--text", metavar="KEY=VALUE", action="append", default=[], type=_text,
        help="what DNS-SD tells of it; may be several",
    )  # fmt: skip
    run.add_argument(
        "--seconds", metavar="N", type=_number(1, 3600), default=60,
        help="that the server has until it listens; default 60",
    )  # fmt: skip
    run.add_argument("argv", metavar="COMMAND", nargs=argparse.REMAINDER, help="and its arguments")

    url = command(
        "url",
        "Turn a URI with the name of a service into the URL that any program understands, which "
        "has the port.",
        'curl "$(oegw moniker url reynolds::http://ietf.org/)"',
        'curl --connect-to "$(oegw moniker url --connect-to http://bob/)" http://bob/',
    )
    url.add_argument("uri", metavar="URI", help="starwars://theforce.net, reynolds::http@2://h/p")
    form = url.add_mutually_exclusive_group()
    form.add_argument(
        "--numeric", action="store_true", help="with the address that was asked, not the name"
    )
    form.add_argument(
        "--connect-to",
        action="store_true",
        help="only where it is, as curl's option of that name wants it",
    )

    command(
        "export",
        "Print what DNS-SD tells of this host's services, as lines of a zone.",
        "oegw moniker export",
    )

    key = command(
        "dns-records",
        "Print what to put into the DNS so that questions to this host are encrypted: its public "
        "key, at the reverse names of its addresses, and where that zone is not yours, at a name. "
        "A host whose `oegw dns-records` has SST keys needs no others.",
        "oegw moniker dns-records --name bob.example",
    )
    key.add_argument(
        "--address", metavar="ADDRESS", action="append", default=[], type=ip_address,
        help="of this host; default: those of [moniker], else those of its interfaces",
    )  # fmt: skip
    key.add_argument(
        "--name", dest="names", metavar="NAME", action="append", default=[],
        help="by which clients ask for this host; may be several",
    )  # fmt: skip

    find = command(
        "find",
        "Find services by name, whatever host they are on, at the gateways that agreed to be "
        "asked. Those are the peers in [moniker.export]. Prints their URIs. The exit code is 1 if "
        "there is none.",
        "oegw moniker find starwars",
        "oegw moniker find starwars@2 episode=4 --json",
    )
    _add_name(find)
    find.add_argument(
        "text", metavar="KEY=VALUE", nargs="*", type=_text, help="only those that say this"
    )
    find.add_argument(
        "--numeric",
        action="store_true",
        help="with addresses, as the gateways tell them, not names of hosts",
    )
    find.add_argument("--json", action="store_true", help="for programs")


def _add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="name or address; HOST:PORT of its daemon")


def _add_name(
    parser: argparse.ArgumentParser, text: str = "starwars, reynolds::http, http@2, http@>=1,<3"
) -> None:
    parser.add_argument("name", metavar="NAME", type=_name, help=text)


def _add_transport(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--transport", metavar="WORD", type=_transport, help="tcp, udp, ...; default: any"
    )


def _checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def argument(text: str) -> Any:
        try:
            return read(text)
        except (BadValue, InvalidName) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument


_name = _checked(ServiceName.parse)
_transport = _checked(lambda text: canonical(text, "transport"))


@_checked
def _text(text: str) -> str:
    """RFC 6763 section 6.4: a key of printable ASCII without "="; all of it in one string."""
    key, equals, _ = text.partition("=")
    if not equals or not key or not all(" " <= each <= "~" for each in key):
        raise BadValue(f"{text[:60]!r} is not of the form KEY=VALUE")
    if len(text.encode("utf-8", "surrogateescape")) > 255:
        raise BadValue(f"{text[:60]!r}... is longer than 255 octets")
    return text


def _number(low: int, high: int) -> Callable[[str], int]:
    @_checked
    def argument(text: str) -> int:
        if len(text) > 9 or not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
            raise BadValue(f"{text[:60]!r} is not a number within {low} to {high}")
        return int(text)

    return argument

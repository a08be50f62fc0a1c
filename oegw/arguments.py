"""What can be written on the command line, and the help that explains it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any, NoReturn

from dnsrecords import rsakey
from dnsrecords.errors import RecordError
from dnsrecords.name import normal_fqdn
from oegw import __version__
from oegw.applyarguments import add_apply, add_diff
from oegw.configfile import BadValue, address_of, host_of, network_from
from oegw.configrules import protocol_of
from oegw.docsarguments import add_docs
from oegw.doctorarguments import add_doctor
from oegw.firstarguments import add_init
from oegw.guardarguments import add_guard
from oegw.keys import DEFAULT_BITS, MIN_BITS
from oegw.monikerarguments import add_moniker
from oegw.seeingarguments import add_seeing, add_svg
from oegw.settings import DEFAULT_CONFIG
from oegw.socksarguments import add_socks
from oegw.sst.settings import DEFAULT_KEY

Arguments = argparse.Namespace
Command = Callable[[Arguments], int]

EXIT_CODES = """\
exit codes:
  0  fine
  1  what was asked for failed
  2  the command line is wrong
  3  the configuration is wrong
  4  no daemon is running, or it can't be reached
  5  not permitted: be root
"""
DOCUMENTATION = Path(__file__).with_name("docs")


class UsageError(Exception):
    """The command line is wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help explains)")


def _as_clause(sentence: str) -> str:
    """As it stands behind a command's name; a name in capitals keeps them."""
    return sentence if sentence[:2].isupper() else sentence[:1].lower() + sentence[1:]


def parser_of(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of all of ``oegw``; ``commands`` says what each does, by name.

    What it parses has the function as ``command``.
    """
    parser = _Parser(
        prog="oegw",
        description="Encrypt the traffic through a router wherever the far side can,\n"
        "with keys from the DNS.",
        epilog=f"{EXIT_CODES}\ndocumentation: oegw docs, or {DOCUMENTATION}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"oegw {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, text: str, *examples: str, group: Any = subparsers
    ) -> argparse.ArgumentParser:
        lines = "".join(f"  {example}\n" for example in examples)
        each: argparse.ArgumentParser = group.add_parser(
            name.split()[-1],
            help=_as_clause(text.split(".")[0]),
            description=fill(text, 80),
            epilog=f"examples:\n{lines}\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        each.set_defaults(command=commands[name])
        return each

    add_init(add, _address, _host, _network, _fqdn, _bits)

    keygen = add(
        "keygen",
        "Make an RSA key pair and print its public half.",
        "oegw keygen --out /etc/oegw/gateway.pem",
        "oegw keygen --out new.pem --bits 4096",
    )
    keygen.add_argument("--out", metavar="FILE", type=Path, required=True, help="made, mode 0600")
    keygen.add_argument(
        "--bits", metavar="N", type=_bits, default=DEFAULT_BITS, help=f"default {DEFAULT_BITS}"
    )
    keygen.add_argument("--force", action="store_true", help="replace a file that is there")

    records = add(
        "dns-records",
        "Print the zone lines that publish this gateway, KEY and TXT records, and those of its key "
        "for port encryption if the configuration names one; or put them into the DNS.",
        "oegw dns-records --client 192.1.0.65 192.1.0.66",
        "oegw dns-records --key gateway.pem --gateway 192.1.1.4 --client 192.1.0.65",
        "oegw dns-records --key gateway.pem --fqdn sg-a.example --client 192.1.0.65",
        "oegw dns-records --update",
    )
    of_key = records.add_mutually_exclusive_group()
    of_key.add_argument("--key", metavar="FILE", type=Path, help="the private key's file")
    of_key.add_argument("--public-key", metavar="KEY", help="a public key: 0s and base64")
    _add_config(of_key, "says key, addresses and identity")
    _add_addresses(records, "--gateway", "outer address of the gateway")
    _add_addresses(records, "--client", "host, or the gateway itself, that it may speak for", _host)
    records.add_argument("--fqdn", metavar="NAME", type=_fqdn, help="the gateway's domain name")
    records.add_argument(
        "--precedence", metavar="N", type=_precedence, help="lower first; default 10"
    )
    records.add_argument(
        "--ipseckey",
        action="store_true",
        help="IPSECKEY records (RFC 4025) too, for peers that read those; "
        "default: as [publish] says",
    )
    sending = records.add_mutually_exclusive_group()
    sending.add_argument(
        "--update",
        action="store_true",
        help="put the records into the DNS by dynamic update, as [publish] says, and don't print",
    )
    sending.add_argument(
        "--withdraw", action="store_true", help="the same, but take the records out of the DNS"
    )
    records.add_argument(
        "--old-sst-keys",
        action="store_true",
        help="with --withdraw: the records of the keys in [sst] old_keys, and no others",
    )

    rollover = add(
        "rollover",
        "Change the gateway's key: publish a new one, wait until it is known everywhere, use it, "
        "withdraw the old one. Each call takes the steps that are due and says when the next is.",
        "oegw rollover",
        "oegw rollover --wait",
        "oegw rollover --status",
        "oegw rollover --abandon",
    )
    how = rollover.add_mutually_exclusive_group()
    how.add_argument("--wait", action="store_true", help="go on until it is over")
    how.add_argument("--status", action="store_true", help="say what is under way, do nothing")
    how.add_argument("--abandon", action="store_true", help="give up, unless the new key is in use")
    rollover.add_argument(
        "--bits", metavar="N", type=_bits, default=DEFAULT_BITS, help=f"default {DEFAULT_BITS}"
    )
    _add_config(rollover)
    _add_socket(rollover)

    check = add(
        "check",
        "Check a configuration: report every error in it, or print the resulting policy in order.",
        "oegw check",
        "oegw check --config new.toml",
        "oegw check --diff",
        "oegw check --diff /etc/oegw/oegw.toml --config new.toml",
    )
    _add_config(check)
    _add_socket(check)
    add_diff(check)

    run = add(
        "run",
        "Run the gateway until SIGTERM or SIGINT; SIGHUP reloads its policy.",
        "oegw run",
        "oegw run --config /etc/oegw/oegw.toml",
    )
    _add_config(run)

    status = add(
        "status",
        "Show what the running gateway does.",
        "oegw status",
        "oegw status --json | jq .counters",
    )
    _add_config(status)
    _add_socket(status)
    status.add_argument("--json", action="store_true", help="for programs")

    add_seeing(add, _add_config, _add_socket)

    explain = add(
        "explain",
        "Say which rule applies to a flow, and what happens to it. "
        "Works from the configuration alone; a running gateway adds the state of the connection.",
        "oegw explain 192.1.0.65 192.2.0.66",
        "oegw explain 192.1.0.65 192.2.0.66 tcp 443",
    )
    _add_flow(explain)
    _add_config(explain)
    _add_socket(explain)

    probe = add(
        "probe",
        "Make the running gateway negotiate for a flow now, and show each step. "
        "The exit code is 0 if a tunnel carries the flow.",
        "oegw probe 192.1.0.65 192.2.0.66",
        "oegw probe 192.1.0.65 192.2.0.66 --svg ladder.svg",
    )
    _add_flow(probe)
    add_svg(probe)
    _add_config(probe)
    _add_socket(probe)

    forget = add(
        "forget",
        "Forget what is remembered about a destination, so that its next packet asks anew.",
        "oegw forget 192.2.0.66",
        "oegw forget 192.2.0.0/24",
    )
    forget.add_argument("destination", metavar="DST", type=_network, help="address or prefix")
    _add_config(forget)
    _add_socket(forget)

    close = add(
        "close",
        "Close the tunnels to a destination, or through a gateway, with Deletes to the peer. "
        "The next packet makes new ones.",
        "oegw close 192.2.0.66",
        "oegw close 0.0.0.0/0",
    )
    close.add_argument("destination", metavar="DST", type=_network, help="address or prefix")
    _add_config(close)
    _add_socket(close)

    reload = add(
        "reload",
        "Make the running gateway read its configuration again; tunnels that it wants stay.",
        "oegw check && oegw reload",
    )
    _add_config(reload)
    _add_socket(reload)

    add_apply(add, _add_config, _add_socket)
    add_doctor(add, _add_config)
    add_docs(add)
    add_guard(add, _add_config, _add_socket)
    _add_sst(add)
    add_moniker(add, _add_config, _Parser)
    add_socks(add, _add_config, _Parser)
    return parser


def _add_sst(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The group ``oegw sst``; without a command of it the state is shown."""
    sst = add(
        "sst",
        "Port encryption on request: what applications of this host can do. Alone it says whether "
        "they can ask, and whether the gateway listens.",
        "oegw sst",
        "oegw sst enable",
        "oegw sst run -- curl https://host.example/",
    )
    _add_config(sst, "says how the gateway is asked")
    group = sst.add_subparsers(metavar="COMMAND", parser_class=_Parser)

    enable = add(
        "sst enable",
        "Bring the socket option to this host: any process may then ask for port encryption of its "
        "own sockets. It lasts until a restart of the host, or until oegw sst disable. Needs root "
        "and Linux 5.18.",
        "oegw sst enable",
        "oegw sst enable --cgroup /sys/fs/cgroup/user.slice",
        "oegw sst enable --all --cgroup /sys/fs/cgroup/system.slice/postfix.service",
        group=group,
    )
    _add_config(enable, "says how the gateway is asked", inherited=True)
    _add_cgroup(enable, "only for the processes of this cgroup (version 2); default: all")

    enable.add_argument(
        "--all",
        action="store_true",
        help="TCP and UDP sockets made there from now on ask by themselves",
    )

    disable = add(
        "sst disable",
        "Take the socket option away. Sockets that have asked go on asking.",
        "oegw sst disable",
        group=group,
    )
    _add_cgroup(disable, "only there; default: wherever it is")

    run = add(
        "sst run",
        "Run a command all of whose TCP and UDP sockets ask for port encryption, its own and those "
        "of what it starts. The exit code is the command's, 128 and the number of a signal that "
        "ended it, 127 if there is no such command, 126 if it can't be executed. Needs root, which "
        "the command has too unless --user says otherwise.",
        "oegw sst run --user alice -- curl https://host.example/",
        "oegw sst run --user postgres -- psql -h db.example",
        group=group,
    )
    _add_config(run, "says how the gateway is asked", inherited=True)
    run.usage = "oegw sst run [-h] [--config FILE] [--user NAME] -- COMMAND ..."
    run.add_argument("--user", metavar="NAME", help="who runs the command; default: root")
    run.add_argument("argv", metavar="COMMAND", nargs=argparse.REMAINDER, help="and its arguments")

    keygen = add(
        "sst keygen",
        "Make the X25519 key of port encryption and print its public half. A file that is there is "
        "never replaced, unless --roll says that the key is to be changed.",
        "oegw sst keygen",
        "oegw sst keygen /etc/oegw/sst.pem",
        "oegw sst keygen --roll",
        group=group,
    )
    keygen.add_argument(
        "--roll",
        action="store_true",
        help="make another key in the place of the one that is there, which is kept as FILE.old",
    )
    _add_config(keygen, "names the file, as sst.private_key", inherited=True)
    keygen.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        nargs="?",
        help=f"default: sst.private_key, else {DEFAULT_KEY}",
    )


def _add_cgroup(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--cgroup", metavar="PATH", type=Path, help=text)


def _add_config(parser: Any, text: str = "the configuration", *, inherited: bool = False) -> None:
    """``inherited``: the command above has the option too, and what it was given stays."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=argparse.SUPPRESS if inherited else DEFAULT_CONFIG,
        help=f"{text}; default {DEFAULT_CONFIG}",
    )


def _add_socket(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket", metavar="FILE", type=Path, help="control socket; default: the configuration's"
    )


def _add_addresses(
    parser: argparse.ArgumentParser,
    option: str,
    text: str,
    read: Callable[[str], Any] | None = None,
) -> None:
    parser.add_argument(
        option,
        metavar="ADDRESS",
        type=read or _address,
        nargs="+",
        action="extend",
        default=[],
        help=f"{text}; may be several",
    )


def _add_flow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", type=_address, help="address of the inside host")
    parser.add_argument("destination", metavar="DST", type=_address, help="address of the far host")
    parser.add_argument(
        "protocol", metavar="PROTO", type=_protocol, nargs="?", help="name or number; default icmp"
    )
    parser.add_argument(
        "port", metavar="PORT", type=_port, nargs="?", help="destination port, for tcp, udp, sctp"
    )


def _checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def argument(text: str) -> Any:
        try:
            return read(text)
        except (BadValue, RecordError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument


_address = _checked(address_of)
_host = _checked(host_of)
_network = _checked(network_from)
_protocol = _checked(protocol_of)
_fqdn = _checked(lambda text: normal_fqdn(text.removeprefix("@")))


def _number(what: str, low: int, high: int) -> Callable[[str], int]:
    def argument(text: str) -> int:
        # No more digits than int() likes.
        if len(text) > 9 or not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text[:60]!r} is not {what} within {low} to {high}")
        return int(text)

    return argument


_bits = _number("a number of bits", MIN_BITS, rsakey.MAX_MODULUS_BITS)
_precedence = _number("a precedence", 0, 65535)
_port = _number("a port", 0, 65535)

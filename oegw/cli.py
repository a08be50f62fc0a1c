"""The command line: ``oegw COMMAND``.  The only module that reads argv.

Every error is one line on stderr that begins with "oegw:"; what was asked for
goes to stdout and nothing else does.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords import rsakey
from dnsrecords.errors import RecordError
from dnsrecords.published import PublishedRecord
from oegw import config
from oegw.advice import advice
from oegw.applycommands import COMMANDS as APPLY_COMMANDS
from oegw.applycommands import difference
from oegw.applyrecord import at_start, in_use
from oegw.arguments import Command, UsageError, parser_of
from oegw.asking import ANSWER_SECONDS
from oegw.asking import ask as _ask
from oegw.asking import control_socket as _socket
from oegw.asking import without_error as _without_error
from oegw.control import ControlError, NoDaemonError, NotPermittedError, request
from oegw.decision import PointError
from oegw.docscommand import COMMANDS as DOCS_COMMANDS
from oegw.doctorarguments import doctor
from oegw.exitcodes import (
    BROKEN_PIPE,
    CONFIGURATION,
    FAILED,
    FINE,
    INTERRUPTED,
    NO_DAEMON,
    NOT_PERMITTED,
    USAGE,
    Failure,
)
from oegw.explain import explanation, table_lines
from oegw.firstcommand import COMMANDS as FIRST_COMMANDS
from oegw.guardcommands import COMMANDS as GUARD_COMMANDS
from oegw.keys import KeyFileAbsent, KeyFileError, generate, read_private, write_private
from oegw.ladder import Ladder
from oegw.laddercommand import Steps, picture_in, text
from oegw.management import management_advice
from oegw.monikercommands import COMMANDS as MONIKER_COMMANDS
from oegw.nat import Nat, nat_of
from oegw.publish import records_of, sst_records_of
from oegw.seeingcommands import COMMANDS as SEEING_COMMANDS
from oegw.settings import PublishSettings, Settings
from oegw.sockscommands import COMMANDS as SOCKS_COMMANDS
from oegw.sst.settings import SstSettings
from oegw.sstadvice import seals_behind_nat
from oegw.sstcommands import COMMANDS as SST_COMMANDS
from oegw.status import clients_text, plain, render
from policy.builtin import builtin_rules
from policy.errors import PolicyError
from policy.flow import Flow, IPAddress
from policy.order import PORTED_PROTOCOLS
from policy.table import PolicyTable

ROLLOVER_LOOK = 10.0  # at most, between two looks whether the next step can be taken
PROBE_SECONDS = 120.0  # between two steps; the daemon itself gives up before

_ICMP = {4: 1, 6: 58}
EPHEMERAL_PORT = 49152  # RFC 6335 section 6: the first of those that nobody is assigned


def parser() -> argparse.ArgumentParser:
    """Of the whole command line: manual pages and completion are generated from it."""
    return parser_of(_COMMANDS)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
        command: Command = arguments.command
        code = command(arguments)
        if sys.stdout is not None:  # who started us may have closed it
            sys.stdout.flush()
    except SystemExit as end:  # --help and --version
        return end.code if isinstance(end.code, int) else FINE
    except UsageError as error:
        return _complain(USAGE, str(error))
    except Failure as failure:
        return _complain(failure.code, *failure.lines)
    except config.ConfigError as error:
        return _complain(CONFIGURATION, *error.problems)
    except NotPermittedError as error:
        return _complain(NOT_PERMITTED, str(error))
    except NoDaemonError as error:
        return _complain(NO_DAEMON, str(error))
    except ControlError as error:
        return _complain(FAILED, str(error))
    except PermissionError as error:
        return _complain(NOT_PERMITTED, f"{error.filename or 'not permitted'}: {error.strerror}")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _say_no_more()  # the reader had enough
        return BROKEN_PIPE
    except OSError as error:  # above all a disk that is full
        if error.filename is None:  # so it is the output
            _say_no_more()
        return _complain(FAILED, f"{error.filename or 'output'}: {error.strerror or error}")
    return code


def _say_no_more() -> None:
    """At its end Python would flush stdout once more, and complain."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(code: int, *messages: str) -> int:
    for message in messages:
        for line in message.splitlines() or [""]:
            print(f"oegw: {plain(line)}", file=sys.stderr)
    return code


# ------------------------------------------------------------------ without daemon


def _keygen(arguments: argparse.Namespace) -> int:
    if arguments.out.exists() and not arguments.force:  # said before the work, too
        raise Failure(FAILED, f"{arguments.out}: exists already; it is replaced only with --force")
    key = generate(arguments.bits)
    try:
        write_private(arguments.out, key, force=arguments.force)
    except KeyFileError as error:
        raise _key_failure(error) from error
    print(rsakey.format_text(key.public_key()))
    return FINE


def _key_failure(error: KeyFileError) -> Failure:
    forbidden = isinstance(error.__cause__, PermissionError)
    return Failure(NOT_PERMITTED if forbidden else FAILED, str(error))


def _dns_records(arguments: argparse.Namespace) -> int:
    sends = arguments.update or arguments.withdraw
    gateways: list[IPAddress] = list(arguments.gateway)
    clients: list[IPAddress] = list(arguments.client)
    published = PublishSettings()
    sst: SstSettings | None = None
    fqdn: str | None = arguments.fqdn
    if arguments.public_key is not None:
        try:
            key = rsakey.parse_text(arguments.public_key)
        except RecordError as error:
            raise UsageError(f"--public-key: {error}") from error
    elif arguments.key is not None:
        key = _public_half(arguments.key)
    else:
        settings = config.load(arguments.config)
        gateway, published = settings.gateway, settings.publish
        if settings.encrypts_ports:  # else nobody would open what the record asks for
            sst = settings.sst
        key = _public_half(gateway.private_key)
        clients = clients or list(published.clients)
        if not gateways and fqdn is None:
            gateways = list(gateway.addresses)
            fqdn = gateway.identity if isinstance(gateway.identity, str) else gateway.fqdn
    if not gateways and fqdn is None:
        raise UsageError("who is the gateway? give --gateway ADDRESS or --fqdn NAME")
    precedence = published.precedence if arguments.precedence is None else arguments.precedence
    if arguments.old_sst_keys and (sst is None or not arguments.withdraw):
        raise UsageError("--old-sst-keys is for --withdraw, by a configuration that has them")
    try:
        if arguments.old_sst_keys and sst is not None:
            records = _sst_records(sst, sst.old_keys, gateways, fqdn, clients, precedence)
        else:
            ipseckey = arguments.ipseckey or published.ipseckey
            records = records_of(key, gateways, fqdn, clients, precedence, ipseckey=ipseckey)
            if sst is not None and sst.private_key is not None:
                own = (sst.private_key,)
                records += _sst_records(sst, own, gateways, fqdn, clients, precedence)
    except RecordError as error:
        raise UsageError(str(error)) from error
    if not sends:
        print("\n".join(record.line for record in records))
        return FINE
    return _change_dns(config.load(arguments.config), records, withdraw=arguments.withdraw)


def _sst_records(
    sst: SstSettings,
    paths: Sequence[Path],
    gateways: list[IPAddress],
    fqdn: str | None,
    clients: list[IPAddress],
    precedence: int,
) -> list[PublishedRecord]:
    """The records of our keys for port encryption.  Raises Failure and RecordError."""
    from oegw.sst import keys  # the other commands do without it

    if not gateways:
        _complain(FINE, "note: no SST records: they name the gateway's addresses; give --gateway")
    records: list[PublishedRecord] = []
    for path in paths:
        try:
            public = keys.read_private(path).public
        except KeyFileError as error:
            raise _key_failure(error) from error
        records += sst_records_of(public, sst.algorithms, gateways, fqdn, clients, precedence)
    return records


def _change_dns(settings: Settings, records: list[PublishedRecord], *, withdraw: bool) -> int:
    from oegw.publishing import PublishingError, update  # takes a while to import

    try:
        for line in update(settings, records, withdraw=withdraw):
            print(line, flush=True)
    except PublishingError as error:
        raise Failure(FAILED, str(error)) from error
    return FINE


def _rollover(arguments: argparse.Namespace) -> int:
    from oegw.publishing import KeyChange, PublishingError

    settings = config.load(arguments.config)
    if not settings.publish.clients:
        _complain(FINE, "note: publish.clients is empty: no client's record gets the new key")

    def reload() -> None:
        try:
            _reload(arguments)
        except NoDaemonError:
            print("no gateway is running: it will use the new key when it starts")
        except (Failure, ControlError) as error:
            raise PublishingError(f"the gateway does not take the new key: {error}") from error

    change = KeyChange(settings, reload)
    try:
        if arguments.abandon:
            for line in change.abandon():
                print(line)
            return FINE
        while True:
            if not arguments.status:
                for line in change.advance(time.time(), arguments.bits):
                    print(line, flush=True)
            state = change.state()
            if state is None or not arguments.wait:
                break
            time.sleep(min(max(state.due - time.time(), 1.0), ROLLOVER_LOOK))
    except PublishingError as error:
        forbidden = isinstance(error.__cause__ and error.__cause__.__cause__, PermissionError)
        raise Failure(NOT_PERMITTED if forbidden else FAILED, str(error)) from error
    if state is None:
        print("no change of key is under way" if arguments.status else "the key has been changed")
    else:
        print(state.text(time.time()))
    return FINE


def _public_half(path: Path) -> rsa.RSAPublicKey:
    try:
        return read_private(path).public_key()
    except KeyFileError as error:
        raise _key_failure(error) from error


def _check(arguments: argparse.Namespace) -> int:
    settings, found = config.examine(arguments.config)
    problems = list(found)
    try:
        read_private(settings.gateway.private_key)
    except KeyFileAbsent as error:
        # Perhaps this is another box, or another user, than the gateway's.
        _complain(FINE, f"note: private key: {error}")
    except KeyFileError as error:
        problems.append(f"private key: {error}")
    problems += _check_files(settings)
    problems += _check_sst_keys(settings)
    problems += _check_moniker_firewall(settings)
    resolvers = _resolvers(settings) if not problems else settings.dns.resolvers
    try:
        table, nat = _policy(settings)
    except PolicyError as error:
        problems += str(error).splitlines()
    else:
        if not problems and arguments.diff is not None:
            return difference(arguments, settings)
        if not problems:
            for line in table_lines(table, settings):
                print(line)
            for by in nat.translations:
                print(f"NAT: {by}")
            for point in settings.decision_points:
                print(f"decision point: {point.name} ({point.url})")
            _complain(FINE, *(f"note: {each}" for each in advice(settings, resolvers, nat)))
            _complain(FINE, *(f"note: {each}" for each in management_advice(table)))
            _check_trial(arguments.config)
            _check_socks(settings)
            _check_firewall(settings)
            _check_translated_ports(settings, nat)
            return FINE
    raise Failure(CONFIGURATION, *problems)


def _resolvers(settings: Settings) -> tuple[IPAddress, ...]:
    """Those that are asked.  Where the box names them, it may be another one than the gateway."""
    from oegw.environment import UnsuitableBox
    from oegw.resolvers import in_use

    try:
        return in_use(settings.dns)
    except UnsuitableBox as error:
        _complain(FINE, f"note: {error}")
        return settings.dns.trusted


def _check_files(settings: Settings) -> Iterator[str]:
    """What is wrong with files that a start, or another command, would stumble over.

    That one is not there is a note only: perhaps this is another box than the gateway's.
    """
    if (tsig_key := settings.publish.tsig_key) is not None:
        from oegw.publishing import PublishingError, read_tsig_key  # takes a while to import

        try:
            read_tsig_key(tsig_key)
        except PublishingError as error:
            if tsig_key.exists():
                yield f"publish.tsig_key: {error}"
            else:
                _complain(FINE, f"note: publish.tsig_key: {error}")
    if settings.datapath.core == "compiled" and settings.datapath.datapath != "kernel":
        from oegw.datapath.userspace.core.choice import what_is_missing  # takes a while to import

        if (missing := what_is_missing()) is not None:
            _complain(FINE, f'note: datapath.core = "compiled": {missing}')
    for peer in settings.moniker.export.peers:
        from oegw.moniker.discovery.browsing import PeerUnusable, key_of  # takes a while to import

        try:
            key_of(peer)
        except PeerUnusable as error:
            if peer.key.exists():
                yield f"moniker.export.peer.key: {error}"
            else:
                _complain(FINE, f"note: moniker.export.peer.key: {error}")
    for point in settings.decision_points:
        if point.ca is None:
            continue
        from oegw.decisionpoint import tls_of  # takes a while to import

        try:
            tls_of(point)
        except PointError as error:
            if point.ca.exists():
                yield str(error)
            else:
                _complain(FINE, f"note: {error}")


def _check_moniker_firewall(settings: Settings) -> Iterator[str]:
    """Whether the kernel takes Moniker's rules: with ``allow`` that nft can't read its daemon would
    not start, and nothing would be denied.  Who is not root can't ask it."""
    firewall = settings.moniker.firewall
    if not firewall.deny or os.geteuid() != 0:
        return
    from oegw.intercept.nft import Nft, NftError  # takes a while to import
    from oegw.moniker.firewall.ruleset import whole_table

    nft = Nft()
    for each in firewall.allow:
        trial = replace(firewall, allow=(each,), outside=firewall.outside or ("lo",))
        try:
            nft.run(whole_table(trial, ()), dry=True)
        except NftError as error:
            first = next((w for w in error.words.splitlines() if "Error" in w), error.words)
            yield f"moniker.firewall.allow: {each!r}: nft refuses it: {first.strip()}"
    nft.close()


def _check_sst_keys(settings: Settings) -> Iterator[str]:
    """The same of the keys of port encryption and of Moniker."""
    from oegw.sst.keys import KeyFileAbsent, KeyFileError
    from oegw.sst.keys import read_private as read_sst_key

    own, moniker = settings.sst.private_key, settings.moniker.private_key
    named = [] if own is None else [("sst.private_key", own)]
    named += [("sst.old_keys", path) for path in settings.sst.old_keys]
    named += [] if moniker in (None, own) else [("moniker.private_key", moniker)]
    for key, path in named:
        try:
            read_sst_key(path)
        except KeyFileAbsent as error:
            _complain(FINE, f"note: {key}: {error}")
        except KeyFileError as error:
            yield f"{key}: {error}"


def _check_trial(path: Path) -> None:
    """Say so if the gateway would not go by this configuration.  Its record is root's to read."""
    if os.geteuid() == 0 and (note := in_use(path).note):
        _complain(FINE, f"note: {note}")


def _check_socks(settings: Settings) -> None:
    """Say where its server listens, and what it would not start with: perhaps this is another
    box."""
    if not settings.socks.present:
        return
    from oegw.sockslisteners import settings_of  # takes a while to import

    try:
        listeners = settings_of(settings).listeners
    except config.ConfigError as error:
        _complain(FINE, *(f"warning: {each}" for each in error.problems))
        return
    for each in listeners:
        interface = f" of {each.interface}" if each.interface else ""
        password = ", with password" if each.authentication == "password" else ""
        encrypted = ", encrypted only" if each.encrypted else ""
        print(f"SOCKS: {each.address} port {each.port}{interface}{password}{encrypted}")


def _check_firewall(settings: Settings) -> None:
    """Warn of firewalls that treat what comes out of a tunnel otherwise than clear traffic."""
    from oegw.environment import UnsuitableBox, survey  # takes a while to import
    from oegw.intercept.interface import InterceptError, InterceptSettings
    from oegw.intercept.nft import firewall_gaps

    if os.geteuid() != 0:
        _complain(FINE, "note: firewall rules are not looked at: only root can read them")
        return
    try:
        box = survey(settings.interfaces.outside, settings.gateway.addresses)
        gaps = firewall_gaps(
            InterceptSettings(
                box.outside,
                settings.datapath.tunnel_interface,
                settings.intercept.mark_mask,
                settings.intercept.assurance_mask,
            )
        )
    except (UnsuitableBox, OSError):
        return  # not this box's configuration: said already
    except InterceptError as error:
        _complain(FINE, f"note: firewall rules can't be read: {error}")
        return
    _complain(FINE, *(f"warning: firewall: {gap}" for gap in gaps))


def _check_translated_ports(settings: Settings, nat: Nat) -> None:
    """Warn of a kernel on which ports behind our own NAT can't be encrypted."""
    if not seals_behind_nat(settings, nat) or os.geteuid() != 0:
        return
    from oegw.intercept.jump import has_nft_queue  # takes a while to import
    from oegw.intercept.nft import Nft, NftError

    try:
        if has_nft_queue(Nft(), "oegw_sst"):
            return
    except (NftError, OSError) as error:
        _complain(FINE, f"note: what nftables can do here is not known: {error}")
        return
    _complain(
        FINE,
        "warning: this kernel's nftables has no queue: flows whose source this box translates are "
        "dropped where port encryption is required, else not sealed",
    )


def _policy(settings: Settings) -> tuple[PolicyTable, Nat]:
    """The policy as this box would have it, and what of its sources it would translate.

    A box that can't be the gateway of this configuration lends no attached networks to it, and
    what its own address means for NAT is not told.
    """
    from oegw.environment import UnsuitableBox, survey  # takes a while to import

    try:
        box = survey(settings.interfaces.outside, settings.gateway.addresses)
        builtin = builtin_rules(box.attached, box.own, settings.management.addresses)
        addresses, translates = box.addresses, box.translates
        named = (settings.gateway.identity or settings.gateway.fqdn) is not None
    except (UnsuitableBox, OSError) as error:
        builtin = builtin_rules()
        addresses, translates = settings.gateway.addresses, ()
        named = True
        _complain(FINE, f"note: without the networks that the gateway is attached to: {error}")
    table = PolicyTable((*settings.rules, *builtin), settings.default)
    known = [
        r
        for r in settings.nat
        if r.outside or any(a.version == r.inside.version for a in addresses)
    ]
    for rule in settings.nat:
        if rule not in known:
            _complain(FINE, f"note: {rule.origin}: which outer address has the gateway?")
    served = settings.dns.local_reverse
    return table, nat_of(known, addresses, named=named, served=served, translates=translates)


def _run(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.config)
    if os.geteuid() != 0:
        raise PermissionError(errno.EPERM, "oegw run changes routes and packet rules: be root")
    settings = at_start(arguments.config).settings
    from oegw.powers import running  # the other commands do without the sockets of it
    from oegw.servicenotify import Service

    return running.run(settings, arguments.config, Service.of(os.environ))


# --------------------------------------------------------------------- with daemon


def _status(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments, command="status")
    answer.pop("done", None)
    print(json.dumps(answer, indent=2) if arguments.json else render(answer), end="")
    if arguments.json:
        print()
    return FINE


def _flow(arguments: argparse.Namespace) -> Flow:
    source, destination = arguments.source, arguments.destination
    if source.version != destination.version:
        raise UsageError("SRC and DST are of different address families")
    protocol = arguments.protocol
    if protocol is None:
        protocol = _ICMP[source.version]
    if arguments.port is not None and protocol not in PORTED_PROTOCOLS:
        raise UsageError(f"protocol {protocol} has no ports")
    # A packet that shows its ports shows both; without one of them every rule with ports could
    # apply, and the strictest would be the answer.
    source_port = None if arguments.port is None else EPHEMERAL_PORT
    return Flow(source, destination, protocol, source_port, arguments.port)


def _message(command: str, flow: Flow) -> dict[str, Any]:
    return {
        "command": command,
        "source": str(flow.source),
        "destination": str(flow.destination),
        "protocol": flow.protocol,
        "source_port": flow.source_port,
        "destination_port": flow.destination_port,
        "port": flow.destination_port,
    }


def _explain(arguments: argparse.Namespace) -> int:
    flow = _flow(arguments)
    settings = config.load(arguments.config)
    try:
        table, nat = _policy(settings)
    except PolicyError as error:
        raise Failure(CONFIGURATION, str(error)) from error
    asked = replace(settings.dns, resolvers=_resolvers(settings))
    for word, sentence in explanation(flow, table, replace(settings, dns=asked), nat):
        print(_entry(word, sentence))
    socket = arguments.socket or settings.gateway.control_socket
    try:
        answer: dict[str, Any] = {}
        for line in request(socket, _message("explain", flow), ANSWER_SECONDS):
            answer |= line
    except (NoDaemonError, NotPermittedError) as error:
        if arguments.socket is not None:
            raise
        print(_entry("now", f"unknown: {error}"))
        return FINE
    _without_error(answer)
    state = str(answer.get("state", "unknown"))
    print(_entry("now", f"{state}: {answer['reason']}" if answer.get("reason") else state))
    if clients := answer.get("clients"):
        print(_entry("", clients_text(clients)))
    if answer.get("rule") != nat.seen(flow, table).rule.name:
        print(_entry("", f"the running gateway applies rule {answer.get('rule')}; oegw reload?"))
    if settings.encrypts_ports and answer.get("encrypts_ports") is False:
        print(_entry("", "the running gateway does not encrypt ports; that begins at a restart"))
    return FINE


def _entry(word: str, sentence: str) -> str:
    return fill(
        plain(sentence), 100, initial_indent=f"{word:<10}", subsequent_indent=" " * 10,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip


def _probe(arguments: argparse.Namespace) -> int:
    flow = _flow(arguments)
    with picture_in(arguments.svg) as ladders:
        return _probed(arguments, flow, ladders)


def _probed(arguments: argparse.Namespace, flow: Flow, ladders: list[Ladder]) -> int:
    steps = Steps(flow)
    for line in request(_socket(arguments), _message("probe", flow), PROBE_SECONDS):
        if "step" in line:
            steps.take(line)
            seconds = line.get("seconds")
            moment = f"{seconds:9.4f} s" if isinstance(seconds, int | float) else " " * 11
            print(
                f"{moment}  {plain(line['step']):<38}  {plain(line.get('detail', ''))}".rstrip(),
                flush=True,
            )
        if line.get("done"):
            _without_error(line)
            result, reason = plain(line.get("result", "?")), plain(line.get("reason") or "")
            ladders.append(steps.ladder(line))
            if arguments.ladder:
                print(text(ladders[-1]))
            print(f"{result}: {reason}" if reason else result)
            return FINE if result == "keyed" else FAILED
    raise NoDaemonError("the answer broke off")


def _forget(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments, command="forget", destination=str(arguments.destination))
    print(f"forgotten: {answer.get('forgotten', 0)}")
    if hosts := answer.get("ports_forgotten"):
        print(f"for port encryption, hosts and gateways forgotten: {hosts}")
    return FINE


def _close(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments, command="close", destination=str(arguments.destination))
    print(f"closed: {answer.get('closed', 0)}")
    return FINE


def _reload(arguments: argparse.Namespace) -> int:
    # The socket is the configuration's, unless it was named: another file's gateway may be there.
    file = None if arguments.socket else str(arguments.config.absolute())
    for note in _ask(arguments, command="reload", file=file).get("notes") or ():
        print(plain(note))
    return FINE


_COMMANDS: dict[str, Command] = {
    **FIRST_COMMANDS,
    "keygen": _keygen,
    "dns-records": _dns_records,
    "rollover": _rollover,
    "check": _check,
    "run": _run,
    "status": _status,
    "explain": _explain,
    "probe": _probe,
    "forget": _forget,
    "close": _close,
    "reload": _reload,
    **APPLY_COMMANDS,
    "doctor": doctor,
    **SEEING_COMMANDS,
    **GUARD_COMMANDS,
    **DOCS_COMMANDS,
    **SST_COMMANDS,
    **MONIKER_COMMANDS,
    **SOCKS_COMMANDS,
}

"""`oegw moniker`: services by name on the command line, and existing programs that know none.

What a command needs is imported when it runs: ssh starts `connect` for each connection.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oegw import config
from oegw.arguments import Arguments, Command, UsageError
from oegw.exitcodes import FAILED, FINE, NO_DAEMON, Failure
from oegw.moniker.interface import Entry, Owner, Service
from oegw.moniker.library.client import Resolved, connect, resolve
from oegw.moniker.library.errors import DaemonAbsent, ServiceRefused
from oegw.moniker.library.local import ask_daemon
from oegw.moniker.names import SYSTEM, MonikerError, ServiceName, Version
from oegw.moniker.settings import DEFAULT_SOCKET, MonikerSettings
from oegw.moniker.uri import MonikerUri
from oegw.moniker.wire import DEFAULT_PORT, Code
from oegw.settings import DEFAULT_CONFIG
from oegw.status import columns, plain

if TYPE_CHECKING:
    from oegw.moniker.discovery.naming import Finding

FIRST_VERSION = "1"  # of a server that says none
PRECEDENCE = 10  # of a key in the DNS; there is one


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except DaemonAbsent as error:
        raise Failure(NO_DAEMON, str(error)) from error
    except MonikerError as error:
        raise Failure(FAILED, str(error)) from error


def _daemon(arguments: Arguments) -> Path:
    """The socket of this host's daemon.

    Whoever may not read the configuration is a user of the host like any other.
    """
    path: Path = arguments.config
    if path == DEFAULT_CONFIG:
        try:
            path.open("rb").close()
        except OSError:
            return DEFAULT_SOCKET
    return config.moniker_socket(path)


def _settings(arguments: Arguments) -> MonikerSettings:
    path: Path = arguments.config
    if path == DEFAULT_CONFIG and not path.exists():
        return MonikerSettings()
    return config.load(path).moniker


# ------------------------------------------------------------------------ the daemon


def _serve(arguments: Arguments) -> int:
    from oegw import monikerprocess

    return monikerprocess.run(arguments.config)


def _status(arguments: Arguments) -> int:
    from oegw import monikerstatus

    status = monikerstatus.status(_daemon(arguments))
    if getattr(arguments, "json", False):
        print(json.dumps(status, indent=2))
    else:
        print(monikerstatus.status_text(status), end="")
    return FINE


def _list(arguments: Arguments) -> int:
    with _failing():
        rows = list(_listed(_daemon(arguments)))
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return FINE
    table = [["NAME", "VERSION", "TRANSPORT", "FAMILIES", "USER", "WEIGHT", ""]]
    for row in rows:
        space = "" if row["namespace"] in ("-", SYSTEM) else f"{row['namespace']}::"
        words = (space + row["service"], *(row[key] for key in _LISTED))
        table.append([plain(word) for word in words] + ["exported" if row["exported"] else ""])
    print("\n".join(columns(table)))
    return FINE


_LISTED = ("version", "transport", "families", "user", "weight")


def _listed(daemon: Path) -> Iterator[dict[str, Any]]:
    """All services that the daemon knows, page by page.  Raises MonikerError."""
    after = 0
    while True:
        answer = ask_daemon({"do": "list", "after": after}, daemon=daemon)
        rows = answer.get("services")
        if not isinstance(rows, list):
            raise DaemonAbsent(f"{daemon}: what answers there is no daemon of Moniker")
        yield from rows
        if not answer.get("more") or not rows:
            return
        after = rows[-1]["number"]


# ------------------------------------------------------------------------- a service


def _host(text: str) -> tuple[str, int]:
    """A host as it is written, and the port of its daemon."""
    try:
        return str(ip_address(text)), DEFAULT_PORT
    except ValueError:
        pass
    try:
        uri = MonikerUri.parse(f"x://{text}")
    except MonikerError:
        raise UsageError(f"{text[:80]!r} is not HOST or HOST:PORT") from None
    if uri.rest:
        raise UsageError(f"{text[:80]!r} is not HOST or HOST:PORT")
    return uri.host, uri.port or DEFAULT_PORT


def _query(arguments: Arguments) -> int:
    host, port = _host(arguments.host)
    with _failing():
        found = resolve(
            host,
            arguments.name,
            transport=arguments.transport,
            question_port=port,
            daemon=_daemon(arguments),
        )
    if arguments.json:
        print(json.dumps(asdict(found) | {"address": str(found.address)}, indent=2))
        return FINE
    rows = [
        ("address", str(found.address)),
        ("port", "none: TCPMUX, at the daemon's own" if found.port is None else str(found.port)),
        ("transport", found.transport),
        ("version", found.version),
        ("families", " ".join(f"IPv{family}" for family in found.families)),
        ("ttl", f"{found.ttl} s"),
        ("question", "encrypted" if found.encrypted else "in clear"),
        ("ports", "to be encrypted" if found.sst else "as they are"),
    ]
    print("\n".join(columns([[key, plain(value)] for key, value in rows])))
    return FINE


def _connect(arguments: Arguments) -> int:
    from oegw import pipe

    host, port = _host(arguments.host)
    with _failing():
        session = connect(host, arguments.name, question_port=port, daemon=_daemon(arguments))
    connection = session.detach()
    if connection.type != socket.SOCK_STREAM:
        connection.close()
        raise Failure(FAILED, f"{arguments.name}: is a service of datagrams, not of a stream")
    return pipe.serve(connection, str(arguments.name), pass_fd=arguments.pass_fd)


def _run(arguments: Arguments) -> int:
    from oegw import monikerrun

    command = list(arguments.argv)
    if command[:1] == ["--"]:
        del command[0]
    elif "--" in command:
        raise UsageError(f"{command[0]!r} stands behind NAME: options come before it")
    if not command:
        raise UsageError("which command? oegw moniker run NAME -- COMMAND (--help explains)")
    if not any(monikerrun.PORT in word for word in command):
        raise UsageError(f"no word of the command has {monikerrun.PORT}: where shall it listen?")
    name: ServiceName = arguments.name
    request: dict[str, Any] = {
        "service": name.service,
        "version": _one_version(name),
        "weight": arguments.weight,
        "sst": arguments.sst,
        "exported": arguments.export,
        "text": arguments.text,
    }
    if name.namespace != SYSTEM:
        request["namespace"] = name.namespace
    with _failing():
        return monikerrun.run(
            monikerrun.Wrapped(
                command,
                request,
                "udp" if arguments.udp else "tcp",
                not arguments.unheld,
                arguments.seconds,
            ),
            _daemon(arguments),
        )


def _one_version(name: ServiceName) -> str:
    """The version that a server says it is."""
    match name.versions.bounds:
        case ():
            return FIRST_VERSION
        case (("=", version),):
            return str(version)
        case _:
            raise UsageError(f"{name}: a server has one version, not a range")


def _url(arguments: Arguments) -> int:
    try:
        uri = MonikerUri.parse(arguments.uri)
    except MonikerError as error:
        raise UsageError(str(error)) from None
    with _failing():
        found = _for_url(uri, _daemon(arguments))
    if found.port is None:
        text = "has no port of its own: oegw moniker connect reaches it (TCPMUX)"
        raise Failure(FAILED, f"{uri.name} at {uri.host}: {text}")
    print(_url_of(uri, found, arguments))
    return FINE


def _for_url(uri: MonikerUri, daemon: Path) -> Resolved:
    """Over TCP, as programs expect that take a URL; else over what there is.

    Raises MonikerError.
    """
    port = uri.port or DEFAULT_PORT
    try:
        return resolve(uri.host, uri.name, transport="tcp", question_port=port, daemon=daemon)
    except ServiceRefused as error:
        if error.code is not Code.TRANSPORT:
            raise
    return resolve(uri.host, uri.name, question_port=port, daemon=daemon)


def _url_of(uri: MonikerUri, found: Resolved, arguments: Arguments) -> str:
    numeric = _bracketed(str(found.address))
    if (
        arguments.connect_to
    ):  # curl(1): HOST1:PORT1:HOST2:PORT2, of which the first two may be empty
        return f"::{numeric}:{found.port}"
    host = numeric if arguments.numeric else _bracketed(uri.host)
    return f"{uri.name.service}://{host}:{found.port}{uri.rest}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# ---------------------------------------------------------------------- to the world


def _entries(daemon: Path) -> list[Entry]:
    """What the daemon would export, as it says itself."""
    return [
        Entry(
            row["number"],
            Service(
                row["service"],
                Version.parse(row["version"]),
                row["transport"],
                row["port"],
                row["families"],
                SYSTEM if row["namespace"] == "-" else row["namespace"],
                row["weight"],
                exported=True,
                text=tuple(row["text"]),
            ),
            Owner(0, 0, 0, row["user"]),
            0.0,
        )
        for row in _listed(daemon)
        if row["exported"] and "port" in row
    ]


def _export(arguments: Arguments) -> int:
    from dnsrecords.errors import RecordError
    from oegw.moniker.discovery.export import host_of, told_addresses
    from oegw.moniker.discovery.naming import Instances, tellable
    from oegw.moniker.discovery.zone import Zone, labels_of

    settings = _settings(arguments)
    if settings.export.zone is None:
        raise UsageError("below which name? the configuration has no moniker.export.zone")
    with _failing():
        entries = [each for each in _entries(settings.socket) if tellable(each.service)]
        host = host_of(settings.export)
    try:
        zone = Zone(
            labels_of(settings.export.zone),
            host,
            told_addresses(settings),
            Instances(host[0]).named(entries),
            1,
        )
        print("\n".join(record.line for record in zone.records()))
    except RecordError as error:
        raise Failure(FAILED, str(error)) from error
    return FINE


def _dns_records(arguments: Arguments) -> int:
    from dnsrecords.errors import RecordError
    from oegw.keyfile import KeyFileError
    from oegw.moniker.discovery.addresses import own_addresses
    from oegw.publish import question_records_of
    from oegw.sst.keys import read_private

    settings = _settings(arguments)
    if settings.private_key is None:
        raise UsageError("the configuration has no moniker.private_key: oegw sst keygen makes one")
    addresses = [*arguments.address] or [*settings.addresses] or [*own_addresses()]
    public = [each for each in addresses if each.is_global or arguments.address]
    if not public:
        raise UsageError("which addresses has this host? give --address")
    try:
        key = read_private(settings.private_key).public
        records = question_records_of(key, public, arguments.names, PRECEDENCE)
    except KeyFileError as error:
        raise Failure(FAILED, str(error)) from error
    except RecordError as error:
        raise UsageError(str(error)) from error
    print("\n".join(record.line for record in records))
    return FINE


def _find(arguments: Arguments) -> int:
    from oegw.moniker.discovery.browsing import Peer, ask_all

    settings = _settings(arguments)
    if not settings.export.peers:
        raise UsageError("whom to ask? the configuration has no [[moniker.export.peer]]")
    with _failing():
        peers = [Peer(found) for found in settings.export.peers]
        found, problems = asyncio.run(ask_all(peers, arguments.name))
    found = [each for each in found if each.says(arguments.text)]
    for problem in problems:
        print(f"oegw: {plain(problem)}", file=sys.stderr)
    if arguments.json:
        print(json.dumps([_shown(each) for each in found], indent=2))
    else:
        for each in found:
            print(plain(_numeric(each) if arguments.numeric else each.uri()))
    return FINE if found else FAILED


def _numeric(finding: Finding) -> str:
    """Its URI with its first address; with its name, if none was told."""
    first = next(iter(finding.addresses), None)
    return finding.uri(None if first is None else str(first))


def _shown(finding: Finding) -> dict[str, Any]:
    """A finding for programs."""
    return {
        "uri": finding.uri(),
        "numeric_uri": _numeric(finding),
        "service": finding.service,
        "version": None if finding.version is None else str(finding.version),
        "namespace": finding.namespace or None,
        "transport": finding.transport,
        "host": finding.host,
        "addresses": [str(address) for address in finding.addresses],
        "weight": finding.weight,
        "text": list(finding.text),
        "instance": finding.instance,
        "gateway": finding.gateway,
    }


COMMANDS: dict[str, Command] = {
    "moniker": _status,
    "moniker serve": _serve,
    "moniker status": _status,
    "moniker query": _query,
    "moniker list": _list,
    "moniker connect": _connect,
    "moniker run": _run,
    "moniker url": _url,
    "moniker export": _export,
    "moniker dns-records": _dns_records,
    "moniker find": _find,
}

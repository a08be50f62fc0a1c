"""`oegw init`: a first configuration, the key, and the records to publish.

Both files are made, or none; what is there already is never replaced.  What is printed is a part of
a zone, all else in it a comment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.errors import RecordError
from dnsrecords.published import PublishedRecord
from oegw import config
from oegw.advice import advice
from oegw.arguments import Arguments, Command, UsageError
from oegw.box import nat_of_box
from oegw.configfile import BadValue, host_of, network_from
from oegw.environment import UnsuitableBox
from oegw.exitcodes import FAILED, FINE, NOT_PERMITTED, Failure
from oegw.first import Choices, Found, look, text_of
from oegw.keyfile import KeyFileAbsent, KeyFileError, write_whole
from oegw.keys import DEFAULT_BITS, generate, read_private, write_private
from oegw.publish import records_of
from oegw.settings import DEFAULT_CONFIG, Settings
from oegw.status import plain
from policy.flow import IPAddress

KEY = "gateway.pem"
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)

ValueT = TypeVar("ValueT")


def _init(arguments: Arguments) -> int:
    path: Path = arguments.dir / DEFAULT_CONFIG.name
    choices = Choices(
        tuple(arguments.gateway), tuple(arguments.client), tuple(arguments.management),
        arguments.fqdn, arguments.server, arguments.tsig_key,
    )  # fmt: skip
    bits = arguments.bits or DEFAULT_BITS
    if path.exists():
        if choices != Choices():
            raise Failure(FAILED, f"{path}: exists already: nothing was changed; edit it")
        settings = config.load(path)
        _note(f"{path} is there already and stays as it is")
        key, made = _key(settings.gateway.private_key, bits)
        found = _found(settings.gateway.addresses)
    else:
        found = _found(choices.gateways)
        if sys.stdin is not None and sys.stdin.isatty() and not arguments.yes:
            choices = _asked(found, choices)
        elif found.ssh is not None and not choices.management:
            choices = replace(choices, management=(ip_network(found.ssh),))
        settings, key, made = _make(path, text_of(found, choices, time.time()), bits)
    for file in made:
        print(f"; made: {file}")
    _tell(settings, found)
    records = _records(settings, found, key)
    print("\n".join(record.line for record in records), flush=True)
    if arguments.update:
        _publish(settings, records)
    print("\n".join(f"; {line}".rstrip() for line in _next(path, published=arguments.update)))
    return FINE


def _found(gateways: tuple[IPAddress, ...]) -> Found:
    try:
        return look(gateways)
    except UnsuitableBox as error:
        which = "" if gateways else ", or give --gateway ADDRESS"
        raise Failure(FAILED, f"nothing was written: {error}{which}") from error


# --------------------------------------------------------------------------- questions


def _asked(found: Found, choices: Choices) -> Choices:
    """Those choices that nothing was said of on the command line."""
    if not choices.clients:
        networks = ", ".join(map(str, found.inside)) or "none found"
        clients = _ask(
            f"Hosts that this gateway encrypts for, besides itself (networks inside: {networks}).\n"
            "Addresses, or Enter for none: ",
            host_of,
        )
        choices = replace(choices, clients=clients)
    if not choices.management:
        proposed = () if found.ssh is None else (ip_network(found.ssh),)
        otherwise = "none" if found.ssh is None else f"{found.ssh}, from where you came by ssh"
        management = _ask(
            "Who manages this box, and is never locked out of it?\n"
            f"Addresses or prefixes, or Enter for {otherwise}: ",
            network_from,
        )
        choices = replace(choices, management=management or proposed)
    return choices


def _ask(question: str, read: Callable[[str], ValueT]) -> tuple[ValueT, ...]:
    while True:
        print(question, end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer:
            raise Failure(FAILED, "no answer: nothing was written")
        try:
            return tuple(read(word) for word in answer.replace(",", " ").split())
        except BadValue as error:
            _note(str(error))


# ------------------------------------------------------------------------------- files


def _make(path: Path, text: str, bits: int) -> tuple[Settings, rsa.RSAPrivateKey, list[Path]]:
    """Both files, or none."""
    settings = config.parse(text, path)
    with ExitStack() as undo:
        if not path.parent.exists():
            path.parent.mkdir(mode=0o755)
            undo.callback(_take_back, path.parent.rmdir)
        key, made = _key(settings.gateway.private_key, bits)
        for file in made:
            undo.callback(_take_back, file.unlink)
        try:
            write_whole(path, text.encode(), 0o644)
        except KeyFileError as error:
            raise _failure(error) from error
        undo.pop_all()
    return settings, key, [*made, path]


def _take_back(what: Callable[[], None]) -> None:
    with suppress(OSError):
        what()


def _key(path: Path, bits: int) -> tuple[rsa.RSAPrivateKey, list[Path]]:
    """The key that is there, or a new one; and what was made."""
    try:
        with suppress(KeyFileAbsent):
            return read_private(path), []
        key = generate(bits)
        write_private(path, key)
    except KeyFileError as error:
        raise _failure(error) from error
    return key, [path]


def _failure(error: KeyFileError) -> Failure:
    forbidden = isinstance(error.__cause__, PermissionError)
    return Failure(NOT_PERMITTED if forbidden else FAILED, str(error))


# ------------------------------------------------------------------------ what is said


def _tell(settings: Settings, found: Found) -> None:
    """What is to be known before a start."""
    if not found.resolvers:
        _note("no resolver is known: /etc/resolv.conf names none, and dns.resolvers is not there")
    for key in found.still:
        _note(f"this box does not forward: sysctl -w {key}=1 (and in /etc/sysctl.d)")
    if not settings.management.addresses:
        _note("nobody is in management.addresses: a rule of yours may lock you out")
    with suppress(UnsuitableBox):
        for each in advice(settings, found.resolvers, nat_of_box(settings, found.box)):
            _note(each)


def _records(settings: Settings, found: Found, key: rsa.RSAPrivateKey) -> list[PublishedRecord]:
    gateway, publish = settings.gateway, settings.publish
    name = gateway.identity if isinstance(gateway.identity, str) else gateway.fqdn
    try:
        return records_of(
            key.public_key(), found.box.addresses, name, publish.clients, publish.precedence,
            ipseckey=publish.ipseckey,
        )  # fmt: skip
    except RecordError as error:
        raise UsageError(str(error)) from error


def _note(text: str) -> None:
    print(f"oegw: note: {plain(text)}", file=sys.stderr)


def _next(path: Path, *, published: bool) -> Iterator[str]:
    option = "" if path == DEFAULT_CONFIG else f" --config {path}"
    yield ""
    yield "Next:"
    if not published:
        yield f"  publish these records, or: oegw dns-records --update{option}"
    yield f"  oegw check{option}"
    if _SYSTEMD.exists() and not option:
        yield "  systemctl enable --now oegw"
    else:
        yield f"  oegw run{option}"
    yield f"  oegw doctor{option}"
    yield "After each change of the configuration:"
    yield f"  oegw apply --confirm 60{option}"


def _publish(settings: Settings, records: list[PublishedRecord]) -> None:
    from oegw.publishing import PublishingError, update  # takes a while to import

    try:
        for line in update(settings, records, withdraw=False):
            print(f"; {plain(line)}", flush=True)
    except PublishingError as error:
        again = "all is made but not published; oegw dns-records --update tries again"
        raise Failure(FAILED, f"{error}: {again}") from error


COMMANDS: dict[str, Command] = {"init": _init}

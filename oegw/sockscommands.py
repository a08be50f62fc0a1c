"""`oegw socks`: the SOCKS server, and a client, on the command line.

What a command needs is imported when it runs: ssh starts `connect` for each connection.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from oegw import config, socks5
from oegw.arguments import Arguments, Command, UsageError
from oegw.exitcodes import FAILED, FINE, Failure
from oegw.settings import DEFAULT_CONFIG
from oegw.socks5 import (
    AddressTypeNotSupported,
    HostUnreachable,
    Proxy,
    RequestRefused,
    SocksError,
)
from oegw.socks5.settings import DEFAULT_SOCKET
from oegw.status import plain

SALT_OCTETS = 16


@contextmanager
def _failing(what: str, unreachable: str = "") -> Iterator[None]:
    """``what`` was asked for.  ``unreachable``: what that reply means where nothing is reached."""
    try:
        yield
    except RequestRefused as error:
        no_host = unreachable and isinstance(error, HostUnreachable)
        raise Failure(FAILED, f"{what}: {unreachable if no_host else error.strerror}") from error
    except SocksError as error:  # of the server, not of the destination
        raise Failure(FAILED, str(error)) from error


# ------------------------------------------------------------------------- the client


def _proxy(arguments: Arguments) -> Proxy:
    proxy: Proxy = replace(arguments.proxy, optimistic=arguments.optimistic)
    path: Path | None = arguments.password_file
    if path is None:
        if proxy.user is not None:
            raise UsageError(f"{proxy.user}'s password is missing: --password-file says it")
        return proxy
    if proxy.user is None:
        raise UsageError("whose password? --proxy USER@HOST says it")
    try:
        with path.open(encoding="utf-8") as lines:
            password = lines.readline().rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise Failure(FAILED, f"{path}: {reason}") from error
    proxy = proxy.with_password(password)
    try:
        proxy.credentials()
    except ValueError as error:
        raise UsageError(str(error)) from None
    return proxy


def _connect(arguments: Arguments) -> int:
    from oegw import pipe

    if not arguments.port and not _says_its_port(arguments.host):
        raise UsageError(f"PORT is missing: {arguments.host} is not the name of a service")
    proxy = _proxy(arguments)
    what = f"{arguments.host} port {arguments.port}" if arguments.port else arguments.host
    with _failing(what):
        connection = socks5.connect(
            proxy, arguments.host, arguments.port, timeout=arguments.seconds
        )
    return pipe.serve(connection, what, pass_fd=arguments.pass_fd)


def _says_its_port(host: str) -> bool:
    """A Moniker name (`oegw.socksnames`)."""
    return "://" in host or host.removesuffix(".").lower().endswith(".mon")


def _resolve(arguments: Arguments) -> int:
    proxy, what, seconds = _proxy(arguments), arguments.what, arguments.seconds
    try:
        address = ip_address(what)
    except ValueError:
        pass
    else:
        with _failing(what, "the server finds no name"):
            print(plain(socks5.name_of(proxy, address, timeout=seconds)))
        return FINE
    found = 0
    for family in arguments.families:
        with _failing(what, "the server finds no address"), suppress(AddressTypeNotSupported):
            # For each a connection of its own: a refusal ends it.
            print(socks5.address_of(proxy, what, family, timeout=seconds))
            found += 1
    if not found:
        families = " and no ".join(f"IPv{family}" for family in arguments.families)
        raise Failure(FAILED, f"{what}: has no {families} address")
    return FINE


# ------------------------------------------------------------------------- the server


def _serve(arguments: Arguments) -> int:
    from oegw import socksprocess

    return socksprocess.run(arguments.config)


def _status(arguments: Arguments) -> int:
    from oegw import socksstatus

    status = socksstatus.status(_socket(arguments.config))
    if getattr(arguments, "json", False):
        print(json.dumps(status, indent=2))
    else:
        print(socksstatus.status_text(status), end="")
    return FINE


def _socket(path: Path) -> Path:
    """Where the server of this configuration answers."""
    if path == DEFAULT_CONFIG and not path.exists():
        return DEFAULT_SOCKET
    return config.socks_socket(path)


def _password(arguments: Arguments) -> int:
    import getpass
    import secrets

    from oegw.socks5.passwords import hashed

    if sys.stdin is None:
        raise Failure(FAILED, "standard input is closed: nothing is printed")
    if sys.stdin.isatty():
        try:
            password = getpass.getpass("password: ")
            if getpass.getpass("again: ") != password:
                raise Failure(FAILED, "the second one is another: nothing is printed")
        except EOFError:
            raise Failure(FAILED, "no password was typed: nothing is printed") from None
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    octets = password.encode("utf-8", "surrogateescape")  # as it was typed, whatever its encoding
    if not 1 <= len(octets) <= 255:
        raise Failure(FAILED, "a password has 1 to 255 octets (RFC 1929)")
    print(hashed(octets, secrets.token_bytes(SALT_OCTETS)))
    return FINE


COMMANDS: dict[str, Command] = {
    "socks": _status,
    "socks connect": _connect,
    "socks resolve": _resolve,
    "socks serve": _serve,
    "socks status": _status,
    "socks password": _password,
}

"""What a client of the SOCKS server may write where a name belongs: whose question it is.  Pure.

    theforce.net                    the DNS's
    192.0.2.1   2001:db8::1         nobody's
    starwars.theforce.net.mon       Moniker's: a service, and the host that has it
    starwars://theforce.net         the same, as a URI

The first label of a name below ``.mon`` is the service, written as in a URI: with namespace and
versions, and with ``%2E`` for a dot of theirs: ``reynolds::http@1%2E2.theforce.net.mon``.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from dnsrecords.errors import MalformedName
from dnsrecords.name import normal_fqdn
from oegw.moniker.names import InvalidName
from oegw.moniker.uri import MonikerUri
from policy.flow import IPAddress

ZONE = ".mon"
LOCALHOST = "localhost"  # RFC 6761 section 6.3, and all below it


class UnreadableName(ValueError):  # noqa: N818  (it names the fact)
    """Neither of these; the text says why."""


@dataclass(frozen=True, slots=True)
class HostName:
    """``name``: in lower case, without a last dot, in the form of the DNS."""

    name: str


Wanted = HostName | IPAddress | MonikerUri


def wanted(text: str) -> Wanted:
    """Raises UnreadableName."""
    try:
        address = ip_address(text)
    except ValueError:
        pass
    else:
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise UnreadableName("an address with an interface")
        return address
    try:
        if "://" in text:
            return MonikerUri.parse(text)
        name = text.removesuffix(".")
        if name[-len(ZONE) :].lower() == ZONE and "." in name[: -len(ZONE)]:
            service, _, host = name[: -len(ZONE)].partition(".")
            return MonikerUri.parse(f"{service}://{host}")
        return HostName(normal_fqdn(_ascii(name)))
    except (InvalidName, MalformedName) as error:
        raise UnreadableName(str(error)) from None


def is_localhost(name: str) -> bool:
    return name == LOCALHOST or name.endswith("." + LOCALHOST)


def _ascii(name: str) -> str:
    """Raises UnreadableName."""
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise UnreadableName(f"can't be written in the DNS: {error}") from None

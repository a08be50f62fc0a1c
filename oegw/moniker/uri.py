"""URIs that say which service: ``starwars://theforce.net/path`` (MK-12, MK-13).

    [NAMESPACE::]SERVICE[@VERSIONS]://HOST[:PORT][/REST]

PORT is that of the host's Moniker daemon, where that is not the usual one; the service's own port
is in no URI.  HOST is a name, an IPv4 address, or an IPv6 address in brackets,
perhaps with ``%25`` and its zone (RFC 6874).  Characters of a name that a URI can't have are
percent-encoded (RFC 3986 section 2.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import quote, unquote_to_bytes

from oegw.moniker.names import InvalidName, ServiceName

# Our choices.
MAX_URI_CHARACTERS = 4096
MAX_HOST_CHARACTERS = 255

_SAFE = ":@,<>=!$&'()*+;~"  # what a name or its versions may have, and a reader should see
_ZONE = re.compile(r"[A-Za-z0-9._~-]{1,32}", re.ASCII)
_WHERE = re.compile(
    r"(?P<host>\[[^\s\[\]]+\]|[^\s\x00-\x1f\x7f/?#@:\[\]%\\]+)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<rest>(?:[/?#][^\s\x00-\x1f\x7f]*)?)"
)


@dataclass(frozen=True, slots=True)
class MonikerUri:
    """``host``: without brackets.  ``port``: of the daemon, None for the usual one.  ``rest``:
    path, query and fragment as written, empty or with its ``/``, ``?`` or ``#``."""

    name: ServiceName
    host: str
    port: int | None = None
    rest: str = ""

    @classmethod
    def parse(cls, text: str) -> MonikerUri:
        """Raises InvalidName."""
        if len(text) > MAX_URI_CHARACTERS:
            raise InvalidName(f"URI: more than {MAX_URI_CHARACTERS} characters")
        written, separator, where = text.partition("://")
        if not separator:
            raise InvalidName(f"URI {text[:80]!r}: has no ://")
        if (found := _WHERE.fullmatch(where)) is None:
            raise InvalidName(f"URI {text[:80]!r}: {where[:80]!r} is not HOST[:PORT][/REST]")
        return cls(
            ServiceName.parse(_unquoted(written)),
            _host(found["host"]),
            _port(found["port"]),
            found["rest"],
        )

    def __str__(self) -> str:
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port is not None else ""
        return f"{quote(str(self.name), safe=_SAFE)}://{host}{port}{self.rest}"


def _unquoted(written: str) -> str:
    try:
        return unquote_to_bytes(written).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidName("URI: the name is not UTF-8 in percent-encoding") from None


def _host(text: str) -> str:
    if len(text) > MAX_HOST_CHARACTERS:
        raise InvalidName(f"URI: a host of more than {MAX_HOST_CHARACTERS} characters")
    if not text.startswith("["):
        return text
    address, percent, zone = text[1:-1].partition("%25")
    try:
        if "%" in address or (percent and not _ZONE.fullmatch(zone)):
            raise AddressValueError
        return str(IPv6Address(address)) + (f"%{zone}" if zone else "")
    except AddressValueError:
        raise InvalidName(f"URI: {text!r} is no IPv6 address") from None


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if int(text) > 65535:
        raise InvalidName(f"URI: port {text} is not within 1 to 65535")
    return int(text)

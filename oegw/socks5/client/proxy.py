"""Which server, and who we are there; what can be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote, urlsplit

from oegw.socks5.client.errors import DestinationUnusable
from oegw.socks5.codes import DEFAULT_PORT
from oegw.socks5.wire import Address, Credentials, MalformedMessage, place_octets

TIMEOUT = 30.0  # seconds for one command, our choice; a server has as long for its own (connect)


@dataclass(frozen=True, slots=True)
class Proxy:
    """``user``: None: without authentication.  ``optimistic``: nothing is waited for between
    greeting and request, so that a command takes one round trip; servers that empty their buffers
    between the messages can't be spoken to in this way, and ours can (SK-9)."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    optimistic: bool = False

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """``gateway``, ``gateway:1080``, ``[2001:db8::1]:1080``, ``alice@gateway``, and all of
        these behind ``socks5://`` or ``socks5h://``.  Raises ValueError."""
        if ":" in text and "[" not in text and _is_address(text):
            return cls(text)
        scheme, separator, rest = text.partition("://")
        if separator and scheme not in ("socks5", "socks5h"):
            raise ValueError(f"{scheme[:20]!r} is not socks5")
        try:
            parts = urlsplit(f"//{rest if separator else text}")
            port = parts.port
        except ValueError:
            raise ValueError("a server is HOST, HOST:PORT or USER@HOST:PORT") from None
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("a server is HOST, HOST:PORT or USER@HOST:PORT")
        return cls(
            parts.hostname,
            DEFAULT_PORT if port is None else port,
            None if parts.username is None else unquote(parts.username),
            None if parts.password is None else unquote(parts.password),
        )

    def with_password(self, password: str) -> Proxy:
        return replace(self, password=password)

    def credentials(self) -> Credentials | None:
        """Raises ValueError: RFC 1929 has no room for them."""
        if self.user is None:
            return None
        credentials = Credentials(self.user.encode(), (self.password or "").encode())
        try:
            credentials.octets()
        except MalformedMessage as error:
            raise ValueError(str(error)) from None
        return credentials

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def destination_of(destination: Address, port: int = 0) -> Address:
    """A name that is an address becomes one.  Raises DestinationUnusable."""
    if isinstance(destination, str):
        literal = destination.removeprefix("[").removesuffix("]")
        if _is_address(literal):
            destination = ip_address(literal)
    if isinstance(destination, IPv6Address) and destination.scope_id is not None:
        raise DestinationUnusable(
            f"{destination}: an interface of this host says the server nothing"
        )
    if not 0 <= port <= 65535:
        raise DestinationUnusable(f"{port} is not a port")
    try:
        place_octets(destination, port)
    except (MalformedMessage, UnicodeError) as error:
        raise DestinationUnusable(str(error)) from None
    return destination


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True

"""Users' passwords: hashes in the configuration, verified here (RFC 1929).  Without IO.

A hash is slow by intent, so `Passwords.verify` belongs into a thread; who was verified is known
again quickly, by `Passwords.known`.
"""

from __future__ import annotations

from collections.abc import Iterable

from oegw.socks5.settings import User
from oegw.socks5.wire import Credentials, IPAddress, SocksError


class InvalidHash(SocksError):  # noqa: N818  (it names the fact)
    """Not what `hashed` writes; the text says why, and not what was written."""


def hashed(password: bytes, salt: bytes) -> str:
    """As the configuration has it: ``$scrypt$ln=14,r=8,p=1$SALT$HASH``.  ``salt``: 16 random
    octets."""
    raise NotImplementedError


def check(text: str) -> None:
    """Whether ``text`` is a hash that we can verify.  Raises InvalidHash."""
    raise NotImplementedError


class Passwords:
    """``key``: 32 random octets of this process.  May be used by several threads."""

    def __init__(self, users: Iterable[User], key: bytes) -> None:
        raise NotImplementedError

    def replace(self, users: Iterable[User]) -> None:
        """At a reload.  What is remembered of users whose hash changed is forgotten."""
        raise NotImplementedError

    def known(self, credentials: Credentials) -> bool:
        """They were verified before; quick.  False says nothing."""
        raise NotImplementedError

    def verify(self, credentials: Credentials) -> bool:
        """Slow, and as slow for a user that does not exist."""
        raise NotImplementedError


class Guesses:
    """Wrong passwords by client address: who has too many waits, and costs us no hash."""

    def __init__(self, failures: int = 8, window: float = 60.0) -> None:
        raise NotImplementedError

    def may_try(self, client: IPAddress, now: float) -> bool:
        raise NotImplementedError

    def failed(self, client: IPAddress, now: float) -> None:
        raise NotImplementedError

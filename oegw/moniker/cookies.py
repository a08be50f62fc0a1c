"""Proof that the source of a datagram gets what is sent to it, without a memory of it (MK-33)."""

from __future__ import annotations

import hmac
from hashlib import sha256

from oegw.moniker.interface import IPAddress

# Our choices.
STEP = 30  # seconds; a cookie is good for one to two steps
COOKIE_OCTETS = 16
SECRET_OCTETS = 32


class Cookies:
    """``secret``: SECRET_OCTETS random octets, the daemon's for as long as it runs."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_OCTETS:
            raise ValueError(f"a secret of {len(secret)} octets")
        self._secret = secret

    def __repr__(self) -> str:
        return "Cookies()"

    def cookie(self, source: IPAddress, now: float) -> str:
        """What ``source`` must repeat."""
        return self._of_step(source, int(now // STEP))

    def holds(self, cookie: str | None, source: IPAddress, now: float) -> bool:
        """Whether ``cookie`` was given to ``source``, in this step or the last."""
        step = int(now // STEP)
        given = (cookie or "").encode("utf-8")
        # Both are compared, so that the time taken says nothing.
        this = hmac.compare_digest(given, self._of_step(source, step).encode("ascii"))
        last = hmac.compare_digest(given, self._of_step(source, step - 1).encode("ascii"))
        return this or last

    def _of_step(self, source: IPAddress, step: int) -> str:
        said = source.packed + step.to_bytes(8, "big", signed=True)
        return hmac.digest(self._secret, said, sha256)[:COOKIE_OCTETS].hex()

"""Users' passwords: hashes in the configuration, verified here (RFC 1929).  Without IO.

A hash is slow by intent, so `Passwords.verify` belongs into a thread; who was verified is known
again quickly, by `Passwords.known`.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from binascii import Error as InvalidBase64
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from oegw.socks5.settings import User
from oegw.socks5.wire import Credentials, IPAddress, SocksError, plain

# Our choice, within what RFC 7914 recommends: 16 MiB and some 50 ms for a guess.
LOG_N, BLOCK, PARALLEL = 14, 8, 1
SALT_OCTETS, HASH_OCTETS = 16, 32
# Our choice: what another program's hash may cost us, by its own parameters: 64 MiB.
MAX_MEMORY = 64 * 1024 * 1024
MAX_PARALLEL = 4

# Our choices: client addresses whose guesses are counted, and how much more often than one of them
# a whole IPv6 network may guess.  Whoever has one has 2^64 addresses.
GUESSERS = 4096
OF_A_NETWORK = 8
NETWORK_BITS = 64


class InvalidHash(SocksError):  # noqa: N818  (it names the fact)
    """Not what `hashed` writes; the text says why, and not what was written."""


@dataclass(frozen=True, slots=True)
class _Hash:
    """``text``: as it was written."""

    text: str = field(repr=False)
    log_n: int
    block: int
    parallel: int
    salt: bytes = field(repr=False)
    wanted: bytes = field(repr=False)

    def of(self, password: bytes) -> bytes:
        return hashlib.scrypt(
            password,
            salt=self.salt,
            n=1 << self.log_n,
            r=self.block,
            p=self.parallel,
            maxmem=2 * MAX_MEMORY,
            dklen=len(self.wanted),
        )

    def memory(self) -> int:
        return 128 * self.block << self.log_n


def hashed(password: bytes, salt: bytes) -> str:
    """As the configuration has it: ``$scrypt$ln=14,r=8,p=1$SALT$HASH``.  ``salt``: 16 random
    octets."""
    blank = _Hash("", LOG_N, BLOCK, PARALLEL, salt, bytes(HASH_OCTETS))
    parameters = f"ln={LOG_N},r={BLOCK},p={PARALLEL}"
    return f"$scrypt${parameters}${_text(salt)}${_text(blank.of(password))}"


def check(text: str) -> None:
    """Whether ``text`` is a hash that we can verify.  Raises InvalidHash."""
    _parse(text)


def _parse(text: str) -> _Hash:
    parts = text.split("$")
    if len(parts) != 5 or parts[:2] != ["", "scrypt"]:
        raise InvalidHash("not $scrypt$ln=...,r=...,p=...$SALT$HASH: oegw socks password makes it")
    try:
        keys, values = zip(*(part.split("=") for part in parts[2].split(",")), strict=True)
        log_n, block, parallel = map(int, values)
        salt, wanted = _octets(parts[3]), _octets(parts[4])
    except (ValueError, InvalidBase64):
        raise InvalidHash("parameters, salt or hash can't be read") from None
    if keys != ("ln", "r", "p") or not (
        1 <= log_n <= 20 and 1 <= block <= 64 and 1 <= parallel <= MAX_PARALLEL
    ):
        raise InvalidHash("parameters out of range")
    if len(salt) < 8 or not 16 <= len(wanted) <= 64:
        raise InvalidHash("salt or hash is too short or too long")
    found = _Hash(text, log_n, block, parallel, salt, wanted)
    if found.memory() > MAX_MEMORY:
        raise InvalidHash("needs more memory than 64 MiB")
    return found


def _text(octets: bytes) -> str:
    return b64encode(octets).decode().rstrip("=")


def _octets(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4), validate=True)


class Passwords:
    """``key``: 32 random octets of this process.  May be used by several threads.  Raises
    InvalidHash, which the reader of the configuration prevents by `check`."""

    def __init__(self, users: Iterable[User], key: bytes) -> None:
        self._key = key
        self._hashes: dict[bytes, _Hash] = {}
        self._verified: dict[bytes, tuple[str, bytes]] = {}  # by user: hash, keyed hash
        self.replace(users)

    def __repr__(self) -> str:
        return f"Passwords(of {len(self._hashes)} users)"

    def replace(self, users: Iterable[User]) -> None:
        """At a reload.  What is remembered of users whose hash changed is forgotten."""
        hashes = {user.name.encode(): _parse(user.password) for user in users}
        # A user that there is not costs what the dearest does.
        self._stranger = max(
            hashes.values(),
            key=lambda each: each.memory() * each.parallel,
            default=_Hash("", LOG_N, BLOCK, PARALLEL, bytes(SALT_OCTETS), bytes(HASH_OCTETS)),
        )
        self._hashes = hashes
        self._verified = {
            user: remembered
            for user, remembered in self._verified.items()
            if user in hashes and hashes[user].text == remembered[0]
        }

    def known(self, credentials: Credentials) -> bool:
        """They were verified before; quick.  False says nothing."""
        remembered = self._verified.get(credentials.user)
        return remembered is not None and hmac.compare_digest(
            remembered[1], self._keyed(credentials)
        )

    def verify(self, credentials: Credentials) -> bool:
        """Slow, and as slow for a user that does not exist."""
        found = self._hashes.get(credentials.user)
        against = found or self._stranger
        right = hmac.compare_digest(against.of(credentials.password), against.wanted)
        if found is None or not right:
            return False
        if self._hashes.get(credentials.user) is found:  # no reload meanwhile
            self._verified[credentials.user] = found.text, self._keyed(credentials)
        return True

    def _keyed(self, credentials: Credentials) -> bytes:
        """The key is this process's: nothing that is remembered is worth anything elsewhere."""
        user = len(credentials.user).to_bytes(1, "big") + credentials.user
        return hmac.digest(self._key, user + credentials.password, "sha256")


class Guesses:
    """Wrong passwords by client address: who has too many waits, and costs us no hash.

    ``failures`` within ``window`` seconds are let pass; then the address may try again when the
    window of its first has ended.  Others are not concerned, unless all of an IPv6 network together
    had `OF_A_NETWORK` times as many.
    """

    def __init__(self, failures: int = 8, window: float = 60.0) -> None:
        self._failures = failures
        self._window = window
        # The count and the end of its window; the oldest first.
        self._guessers: OrderedDict[IPAddress | int, tuple[int, float]] = OrderedDict()

    def may_try(self, client: IPAddress, now: float) -> bool:
        for guesser, most in self._guessers_of(client):
            count, end = self._guessers.get(guesser, (0, now))
            if now < end and count >= most:
                return False
        return True

    def failed(self, client: IPAddress, now: float) -> None:
        for guesser, _ in self._guessers_of(client):
            count, end = self._guessers.get(guesser, (0, now))
            if now >= end:
                self._guessers.pop(guesser, None)
                count, end = 0, now + self._window
            self._guessers[guesser] = count + 1, end
        while len(self._guessers) > GUESSERS:
            self._guessers.popitem(last=False)

    def _guessers_of(self, client: IPAddress) -> list[tuple[IPAddress | int, int]]:
        """Each with the number of guesses that it has.  A network is the number of its prefix."""
        client = plain(client)
        if client.version == 4:
            return [(client, self._failures)]
        network = int(client) >> (client.max_prefixlen - NETWORK_BITS)
        return [(client, self._failures), (network, OF_A_NETWORK * self._failures)]

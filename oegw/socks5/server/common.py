"""What all of the server's conversations share."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from oegw.socks5.addressids import AddressIds
from oegw.socks5.interface import Dialler, Refused, Relay, Resolver, Transferred
from oegw.socks5.limits import Places
from oegw.socks5.passwords import Guesses, Passwords
from oegw.socks5.rules import Rules
from oegw.socks5.server.counting import Tally
from oegw.socks5.server.outgoing import Outgoing, OwnAddresses
from oegw.socks5.server.routes import is_own
from oegw.socks5.settings import SocksSettings, User
from oegw.socks5.wire import Credentials, IPAddress
from oegw.trace import Trace

if TYPE_CHECKING:
    from oegw.socks5.server.associating import Relaying

VERIFIERS = 2  # threads; a flood of wrong passwords gets no more of the box
# Names that one client has asked for at a time; the next wait.  What all of them may ask is limited
# by the resolver, and who asks for names that nobody answers would have all of that.
NAMES_AT_A_TIME = 32


class Common:
    """``settings`` and what is made of them are replaced at a reload, the rest stays."""

    def __init__(
        self,
        settings: SocksSettings,
        resolver: Resolver,
        dialler: Dialler,
        relay: Relay,
        trace: Trace,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.relay = relay
        self.tally = Tally(trace, time.monotonic)
        self.octets: Counter[str] = Counter()
        self.octets_of_users: Counter[str] = Counter()
        self.stages: Counter[str] = Counter()  # connections that are relayed, binding, associations
        self.associations: set[Relaying] = set()
        self.ids = AddressIds(settings.ids, secrets.token_bytes)
        self.places = Places(settings.limits, settings.users)
        self._passwords = Passwords(settings.users, secrets.token_bytes(32))
        self._guesses = Guesses()
        self._verifiers = ThreadPoolExecutor(VERIFIERS, "passwords")
        self._turns: WeakValueDictionary[IPAddress, asyncio.Lock] = WeakValueDictionary()
        self._asking: WeakValueDictionary[IPAddress, asyncio.Semaphore] = WeakValueDictionary()
        self.settings = settings
        self.apply(settings, resolver, dialler)

    def apply(self, settings: SocksSettings, resolver: Resolver, dialler: Dialler) -> None:
        same_rules = settings.rules == self.settings.rules
        self.settings = settings
        self.resolver = resolver
        self.dialler = dialler
        self.rules = Rules(settings.rules, OwnAddresses(time.monotonic, is_own))
        self.outgoing = Outgoing(settings.outgoing, dialler)
        self.users: dict[str, User] = {user.name: user for user in settings.users}
        self.places.configure(settings.limits, settings.users)
        self._passwords.replace(settings.users)

        if not same_rules:  # else what is on its way to a client would be nobody's
            for association in self.associations:
                association.reconsider()

    def close(self) -> None:
        self._verifiers.shutdown(wait=False, cancel_futures=True)

    def now(self) -> float:
        return self.loop.time()

    async def user_of(self, credentials: Credentials, client: IPAddress) -> User | None:
        """None: it is not one of ours, or its password is wrong."""
        if not self._passwords.known(credentials) and not await self._verify(credentials, client):
            return None
        return self.users.get(credentials.user.decode("utf-8", "replace"))

    async def _verify(self, credentials: Credentials, client: IPAddress) -> bool:
        """One at a time of each client's: many guesses at once are counted as many, and a browser
        that begins with twenty connections waits for the first of them."""
        turn = self._turns.get(client) or asyncio.Lock()
        self._turns[client] = turn
        async with turn:
            if self._passwords.known(credentials):
                return True
            if not self._guesses.may_try(client, self.now()):
                self.tally.drop("password_guesses", client=str(client))
                return False
            right = await self.loop.run_in_executor(
                self._verifiers, self._passwords.verify, credentials
            )
            if not right:
                self._guesses.failed(client, self.now())
            return right

    def asking(self, client: IPAddress) -> asyncio.Semaphore:
        """Held while the resolver is asked for a client."""
        asking = self._asking.get(client) or asyncio.Semaphore(NAMES_AT_A_TIME)
        self._asking[client] = asking
        return asking

    def ended(self, user: str, transferred: Transferred) -> None:
        """A relayed connection."""
        self.stages["relayed"] -= 1
        self.octets["to_destination"] += transferred.to_destination
        self.octets["to_client"] += transferred.to_client
        if user:
            self.octets_of_users[user] += transferred.to_destination + transferred.to_client
        self.tally.event(
            f"relay_{transferred.reason}",
            user=user,
            to_destination=transferred.to_destination,
            to_client=transferred.to_client,
        )

    def broke(self, error: BaseException) -> None:
        """A mistake of ours ends one client's connection, and is told; the others go on."""
        self.tally.event("internal_error", detail=repr(error))
        self.loop.call_exception_handler({"message": "a SOCKS client", "exception": error})

    def refused(self, refused: Refused, client: IPAddress, user: str) -> None:
        self.tally.drop(refused.reason, client=str(client), user=user, code=int(refused.code))

"""The desk of packets on their way in: opened, held, or dropped (SST-13, 15, 16, 19, 35, 36)."""

from __future__ import annotations

from collections import OrderedDict

from oegw.packet.ip import UDP
from oegw.sst.allowance import Allowance
from oegw.sst.books import Books, Refused, Wait, host
from oegw.sst.directory import KnownKeys, Silence
from oegw.sst.interface import Caught, IPAddress, Leg, PortFlow, Reason
from oegw.sst.keyring import Choice, of_tunnel
from oegw.sst.permutation import NotEligible
from oegw.sst.place import Fragment, Place, place_of
from oegw.sst.quote import open_quote, quote_of
from oegw.sst.settings import Strangers

# Our choices: shares of the fast path's room that flows may take at once which nothing here knows,
# of one host and of all together, and again in the course of a lifespan.  Random ports under a
# forged source open to random ports, and whoever has a reverse zone has many hosts.
SHARE_OF_ONE_HOST = 8
SHARE_OF_ALL_HOSTS = 4


KEYING_PORTS = frozenset({500, 4500})  # RFC 2408 section 2.5.1, RFC 3947 section 4
GATEWAYS_LIMIT = 4096  # that are remembered for having sealed IKE's ports


class Opener:
    """``came_shielded``: gateways whose IKE, or ESP in UDP, came sealed, and until when that
    counts."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._openings = self._share(SHARE_OF_ALL_HOSTS)
        self.came_shielded: OrderedDict[tuple[IPAddress, IPAddress], float] = OrderedDict()

    def packet(self, caught: Caught, now: float, wall: float, until: float) -> None:
        """Decide on a flagged packet.  Raises PacketError for one that can't be read."""
        books = self._books
        try:
            place = place_of(caught.packet)
        except NotEligible as error:
            books.drop(caught, error.trigger)
            return
        local, remote = host(place.destination), host(place.source)
        if place.fragment is Fragment.LATER:  # it has no ports; without the first it is nothing
            books.plane.release(caught.number, books.signal.cleared(caught.packet))
            return
        found = self._choices(caught.leg, local, remote, now, wall)
        if not isinstance(found, list):
            self._stranger(caught, remote, found, now, until)
            return
        try:
            picked = self._pick(found, place, local, remote, patient=until > now)
            if isinstance(picked, Wait):
                if books.hold(caught, picked, remote, until, stranger=True):
                    return
                picked = self._pick(found, place, local, remote, patient=False)
        except NotEligible as error:
            books.drop(caught, error.trigger, remote=remote)
            return
        if picked is None or isinstance(picked, Wait):
            self._stranger(caught, remote, Refused("its keys are gone", 0.0), now, until)
            return
        choice, flow = picked
        if flow.local_port in KEYING_PORTS and flow.protocol == UDP and local in books.addresses:
            self._note_shield(local, remote, now)
        fast = self._may_enter(remote, now)
        books.enter(caught, place, flow, choice, now, fast=fast)

    def quote(self, caught: Caught, now: float, wall: float, until: float) -> None:
        """An ICMP error about a packet that we sealed (SST-19).  Raises PacketError."""
        books = self._books
        try:
            place = quote_of(caught.packet)
        except NotEligible as error:
            books.drop(caught, error.trigger)
            return
        local, remote = host(place.source), host(place.destination)
        if place.source_port is None:
            books.drop(caught, "quote_without_ports", remote=remote)
            return
        found = self._choices(caught.leg, local, remote, now, wall)
        if not isinstance(found, list):
            self._stranger(caught, remote, found, now, until)
            return
        try:
            for choice in found:
                if books.tracks(_as_it_left(choice, place, local, remote)):
                    break
            else:
                books.drop(caught, "quote_of_nothing", remote=remote)
                return
            packet = open_quote(caught.packet, choice.permutation, books.signal)
        except NotEligible as error:
            books.drop(caught, error.trigger, remote=remote)
            return
        books.plane.release(caught.number, packet)
        books.note("quote_opened", by_stranger=True, remote=remote)

    def too_late(self, caught: Caught, now: float, wall: float) -> None:
        """It was held for as long as we have patience (SST-36): what is known has to do."""
        if caught.reason is Reason.QUOTE:
            self.quote(caught, now, wall, now)
        else:
            self.packet(caught, now, wall, now)

    # -------------------------------------------------------------------- details

    def _choices(
        self, leg: Leg, local: IPAddress, remote: IPAddress, now: float, wall: float
    ) -> list[Choice] | Wait | Refused:
        """Keys to try, at least one."""
        books = self._books
        if leg is Leg.TUNNEL:
            tunnels = [of_tunnel(key) for key in books.tunnels.covering(local, remote, now)]
            return tunnels or Refused("the tunnel has no key for ports", 0.0)
        if not books.own:
            return Refused("no static key of ours", 0.0)
        knowledge = books.known(remote, now)
        relation = books.relations.find(remote)
        if knowledge is None:
            wait = books.ask(remote, now, stranger=True)
            if relation is None or not relation.known_keys:
                if wait is None:
                    return Refused("too many strangers", 0.0)
                return wait
        elif not isinstance(knowledge, KnownKeys | Silence) and relation is not None:
            relation.learn(())
        if relation is None or not relation.known_keys:
            return Refused("no key", 0.0)
        return books.keyring.opening(relation, now, wall) or Refused("no usable key", 0.0)

    def _pick(
        self,
        choices: list[Choice],
        place: Place,
        local: IPAddress,
        remote: IPAddress,
        *,
        patient: bool,
    ) -> tuple[Choice, PortFlow] | Wait | None:
        """The key, and the flow under it.

        With several the one that opens to a connection; else the likeliest, for a new one (sst.md
        section 7.4).  ``patient``: there is time to ask if these are its keys still.  None: only
        connections under way could have such a key.  Raises NotEligible.
        """
        books = self._books
        relation = books.relations.find(remote) if choices[0].terms is not None else None
        current = relation is None or bool(relation.keys)
        if len(choices) == 1 and current:
            return choices[0], _opened(choices[0], place, local, remote)
        for choice in choices:
            flow = _opened(choice, place, local, remote)
            if books.tracks(flow):
                return choice, flow
        if not current:
            return None
        sure = relation is None or bool(books.keyring.announced(relation))
        if patient and not sure and remote in books.asking:
            return Wait(("keys", remote))  # they have expired, and may be others now
        choice = choices[0]
        flow = _opened(choice, place, local, remote)
        if relation is not None and choice.terms is not None and not sure:
            relation.guess(flow, choice.terms)
        return choice, flow

    def _note_shield(self, local: IPAddress, remote: IPAddress, now: float) -> None:
        """Known flows don't come by here: a miss follows after a lifespan at the latest."""
        self.came_shielded[local, remote] = now + 2 * self._books.settings.flow_lifespan
        self.came_shielded.move_to_end((local, remote))
        if len(self.came_shielded) > GATEWAYS_LIMIT:
            self.came_shielded.popitem(last=False)

    def _may_enter(self, remote: IPAddress, now: float) -> bool:
        """Whether a flow that may be nobody's gets a place in the fast path.

        An answer to it does (`sealer`); that the kernel tracks it shows only that it came before.
        """
        books = self._books
        relation = books.relations.find(remote)
        if relation is None:  # in a tunnel: its peer is authenticated
            return True
        if relation.openings is None:
            relation.openings = self._share(SHARE_OF_ONE_HOST)
        if relation.openings.take(now) and self._openings.take(now):
            return True
        books.note("opened_slowly", by_stranger=True, remote=remote)
        return False

    def _share(self, part: int) -> Allowance:
        share = max(1.0, self._books.settings.flows / part)
        return Allowance(share / self._books.settings.flow_lifespan, share)

    def _stranger(
        self, caught: Caught, remote: IPAddress, found: Wait | Refused, now: float, until: float
    ) -> None:
        if isinstance(found, Wait):
            if until > now and self._books.hold(caught, found, remote, until, stranger=True):
                return
            found = Refused("no answer in time" if until <= now else "no room to wait", 0.0)
        self._by_policy(caught, found.reason, remote=remote)

    def _by_policy(self, caught: Caught, reason: str, **fields: object) -> None:
        """Nobody we know sealed it (SST-16)."""
        if self._books.settings.strangers is Strangers.PASS:
            self._books.plane.release(caught.number)
            self._books.note("stranger_passed", by_stranger=True, reason=reason, **fields)
        else:
            self._books.drop(caught, "stranger", reason=reason, **fields)


def _opened(choice: Choice, place: Place, local: IPAddress, remote: IPAddress) -> PortFlow:
    assert place.source_port is not None and place.destination_port is not None  # noqa: PT018
    remote_port, local_port = choice.permutation.open_ports(
        place.source, place.destination, place.protocol, place.source_port,
        place.destination_port,
    )  # fmt: skip
    return PortFlow(local, remote, place.protocol, local_port, remote_port)


def _as_it_left(choice: Choice, place: Place, local: IPAddress, remote: IPAddress) -> PortFlow:
    """The flow of a packet that is quoted, which went from ``local`` to ``remote``."""
    assert place.source_port is not None and place.destination_port is not None  # noqa: PT018
    local_port, remote_port = choice.permutation.open_ports(
        place.source, place.destination, place.protocol, place.source_port,
        place.destination_port,
    )  # fmt: skip
    return PortFlow(local, remote, place.protocol, local_port, remote_port)

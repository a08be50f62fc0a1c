"""The desk of packets on their way out: sealed, held, or let go without (SST-14, 18, 29, 31)."""

from __future__ import annotations

from dataclasses import dataclass

from oegw.packet.flow import flow_of
from oegw.packet.ip import TCP, PacketError
from oegw.sst.books import Answer, Books, Refused, Wait, host
from oegw.sst.directory import KnownKeys, NoKeys, NotToBeTrusted, Silence
from oegw.sst.interface import Caught, IPAddress, Leg, PathState, PortFlow, Wish
from oegw.sst.keyring import Choice, of_tunnel
from oegw.sst.packet import seal
from oegw.sst.permutation import NotEligible
from oegw.sst.place import Fragment, Place, place_of
from oegw.sst.quote import quote_of, seal_quote
from oegw.sst.settings import Fragments
from policy.flow import Flow
from policy.rule import Sst, SstStrength

# Our choices, in seconds.
NO_TUNNEL_KEY = 10.0  # until a flow in a tunnel without a key is looked at again
TOO_MUCH = 5.0  # until a flow is looked at again for which there was no room


@dataclass(frozen=True, slots=True)
class Demand:
    """What is wanted of a packet.  ``required``: without, it does not leave.  ``sticky``: its
    connection has sealed ports already, and no say of policy or path changes that."""

    wanted: bool
    required: bool
    sticky: bool
    secure: bool


class Sealer:
    """``shields``: pairs of gateways whose own packets are sealed."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.shields: set[tuple[IPAddress, IPAddress]] = set()

    def packet(self, caught: Caught, now: float, wall: float, until: float) -> None:
        """Decide on a packet that wants to be sealed.  Raises PacketError for one that can't be
        read."""
        try:
            place = place_of(caught.packet)
        except NotEligible as error:
            self._not_eligible(caught, error.trigger, now)
            return
        local, remote = host(place.source), host(place.destination)
        demand = self._demand(caught, _flow(place, local, remote), local, remote)
        if place.source_port is None or place.destination_port is None:
            self._fragment(caught, place, None, demand, now, wall, until)
            return
        flow = PortFlow(local, remote, place.protocol, place.source_port, place.destination_port)
        if not demand.wanted:
            self._books.decline(caught, flow, remote, Refused("not wanted", TOO_MUCH), now)
        elif place.fragment is not Fragment.WHOLE:
            self._fragment(caught, place, flow, demand, now, wall, until)
        else:
            answer = self._choice(caught.leg, flow, caught.epoch, demand, now, wall)
            self._follow(caught, place, flow, demand, answer, now, until)

    def too_late(self, caught: Caught, reason: str, now: float) -> None:
        """It was held for as long as we have patience (SST-36)."""
        place = place_of(caught.packet)
        local, remote = host(place.source), host(place.destination)
        demand = self._demand(caught, _flow(place, local, remote), local, remote)
        flow = None
        if place.source_port is not None and place.destination_port is not None:
            flow = PortFlow(
                local, remote, place.protocol, place.source_port, place.destination_port
            )
        self._refuse(caught, flow, remote, demand, Refused(reason, TOO_MUCH), now)

    def quote(self, caught: Caught, now: float, wall: float) -> None:
        """An ICMP error that leaves: what it quotes of an opened connection is sealed (SST-20).

        Raises PacketError.
        """
        try:
            place = quote_of(caught.packet)
        except NotEligible:
            self._books.plane.release(caught.number)
            return
        if place.source_port is None or place.destination_port is None:
            self._books.plane.release(caught.number, caught.packet)
            return
        # The packet quoted came from outside.
        flow = PortFlow(
            host(place.destination), host(place.source), place.protocol,
            place.destination_port, place.source_port,
        )  # fmt: skip
        if not caught.sticky and self._books.birth(caught.leg, flow) is None:
            self._quote_of_nothing(caught, flow)
            return
        demand = Demand(wanted=True, required=True, sticky=True, secure=False)
        choice = self._choice(caught.leg, flow, caught.epoch, demand, now, wall)
        if isinstance(choice, Refused) and caught.leg is Leg.TUNNEL:  # ESP hides it
            self._books.plane.release(caught.number)
            return
        if not isinstance(choice, Choice):
            self._books.drop(caught, "quote_without_key", remote=flow.remote)
            return
        packet = seal_quote(caught.packet, choice.permutation, self._books.signal)
        self._books.plane.release(caught.number, packet, choice.epoch)
        self._books.note("quote_sealed", by_stranger=True, remote=flow.remote)

    def _quote_of_nothing(self, caught: Caught, flow: PortFlow) -> None:
        """Neither connection tracking nor we know the flow that it is about, so it may have been
        sealed: where that is required, the quote tells no ports."""
        answer = Flow(flow.local, flow.remote, flow.protocol, flow.local_port, flow.remote_port)
        wish = self._books.wish(answer)
        if self._by_policy(caught, wish) and wish.strength is SstStrength.REQUIRED:
            self._books.drop(caught, "quote_of_nothing", remote=flow.remote)
        else:
            self._books.plane.release(caught.number, caught.packet)

    def prospect(self, remote: IPAddress, now: float, wall: float, *, secure: bool) -> Answer:
        """The static key for new flows to a host, if its path is known to work."""
        books = self._books
        if not books.own:
            return Refused("no static key of ours", TOO_MUCH)
        match books.known(remote, now, secure=secure):
            case KnownKeys():
                pass
            case NoKeys(detail=detail, expires=end):
                return Refused(f"no key: {detail}", end - now)
            case NotToBeTrusted(detail=detail, expires=end):
                return Refused(f"key not to be trusted: {detail}", end - now)
            case Silence(detail=detail, expires=end):
                if not books.relation_keys(remote):
                    return Refused(f"no answer about the key: {detail}", end - now)
            case _:
                wait = books.ask(remote, now, stranger=False)
                if not books.relation_keys(remote):
                    return wait or Refused("too many questions", TOO_MUCH)
        relation = books.relations.find(remote)
        keys = relation.keys if relation is not None else ()
        if relation is None or not keys:
            return Refused("no usable key", TOO_MUCH)
        waits: Wait | None = None
        reason, soonest = "", float("inf")
        for place in dict.fromkeys((key.gateway, key.public_key) for key in keys):
            key = next(key for key in keys if (key.gateway, key.public_key) == place)
            path = books.paths.of(key, now)
            for other in keys:
                if (other.gateway, other.public_key) == place:
                    books.paths.of(other, now)
            worth_waiting = books.paths.use(path, now, wall)
            if path.state is PathState.WORKS and path.agreed is not None and not path.switching:
                choice = books.keyring.choice(path.agreed, path.public_key)
                if choice is not None:
                    return choice
            if worth_waiting and waits is None:
                waits = Wait(("path", *place))
            reason = reason or f"path {path.state.value}"
            soonest = min(soonest, books.paths.seconds_to_probe(path, now))
        return waits or Refused(reason, soonest)

    # -------------------------------------------------------------------- details

    def _demand(self, caught: Caught, flow: Flow, local: IPAddress, remote: IPAddress) -> Demand:
        wish = self._books.wish(flow)
        shielded = caught.leg is Leg.OUTSIDE and (local, remote) in self.shields
        by_policy = self._by_policy(caught, wish)
        return Demand(
            wanted=by_policy or shielded or caught.sticky,
            required=shielded or (by_policy and wish.strength is SstStrength.REQUIRED),
            sticky=caught.sticky,
            secure=wish.secure,
        )

    def _by_policy(self, caught: Caught, wish: Wish) -> bool:
        if caught.leg is Leg.TUNNEL:
            return wish.sst is Sst.INNER
        return wish.sst is Sst.ONLY or caught.asked

    def _follow(
        self, caught: Caught, place: Place, flow: PortFlow, demand: Demand, answer: Answer,
        now: float, until: float,
    ) -> None:  # fmt: skip
        books = self._books
        match answer:
            case Choice():
                try:
                    # Nothing follows a reset; and whoever plays at random ports gets many.
                    fast = not (demand.sticky and _is_reset(caught.packet, place))
                    books.enter(caught, place, flow, answer, now, fast=fast)
                except NotEligible as error:
                    refused = Refused(error.trigger, TOO_MUCH)
                    self._refuse(caught, flow, flow.remote, demand, refused, now)
            case Wait():
                if until <= now:
                    refused = Refused("no answer in time", TOO_MUCH)
                elif books.hold(caught, answer, flow.remote, until, stranger=False):
                    return
                else:
                    refused = Refused("no room to wait", TOO_MUCH)
                self._refuse(caught, flow, flow.remote, demand, refused, now)
            case Refused():
                self._refuse(caught, flow, flow.remote, demand, answer, now)

    def _refuse(
        self, caught: Caught, flow: PortFlow | None, remote: IPAddress, demand: Demand,
        refused: Refused, now: float,
    ) -> None:  # fmt: skip
        """It can't be sealed: strength says what follows (SST-29)."""
        # An answer without would say which ports these are (SST-18).  In a tunnel ESP hides them: a
        # flow that was sealed before goes on in one whose peer agreed upon no key for ports.
        if demand.sticky and caught.leg is Leg.OUTSIDE:
            self._books.block(caught, "sticky_without_key", flow, remote, refused, now)
        elif demand.required:
            self._books.block(caught, "required", flow, remote, refused, now)
        else:
            self._books.decline(caught, flow, remote, refused, now)

    def _not_eligible(self, caught: Caught, trigger: str, now: float) -> None:
        """It has no ports, or none that both ends would find (sst.md section 14.7)."""
        books = self._books
        try:
            seen = flow_of(caught.packet)
        except PacketError as error:
            books.drop(caught, error.trigger)
            return
        demand = self._demand(caught, seen, seen.source, seen.destination)
        books.trace.event("sst", "not_eligible", trigger=trigger, remote=seen.destination)
        if demand.required:
            books.drop(caught, trigger, remote=seen.destination)
            return
        flow = None
        if seen.source_port is not None and seen.destination_port is not None:
            flow = PortFlow(
                seen.source, seen.destination, seen.protocol, seen.source_port,
                seen.destination_port,
            )  # fmt: skip
        books.decline(caught, flow, seen.destination, Refused(trigger, float("inf")), now)

    def _fragment(
        self, caught: Caught, place: Place, flow: PortFlow | None, demand: Demand, now: float,
        wall: float, until: float,
    ) -> None:  # fmt: skip
        """IPv4 fragments lose the flag on the way; IPv6's keep theirs (sst.md section 9)."""
        books = self._books
        policy = books.settings.fragments
        remote = host(place.destination)
        if not demand.wanted:
            books.plane.release(caught.number, caught.packet)
            return
        if place.version == 4 and policy is not Fragments.TRY:
            if policy is Fragments.DROP or (policy is Fragments.STRENGTH and demand.required):
                books.drop(caught, "fragment", remote=remote)
            else:
                books.plane.release(caught.number, caught.packet)
                books.trace.event("sst", "fragment_clear", remote=remote)
            return
        answer = self._fragment_choice(caught, remote, flow, demand, now, wall)
        if isinstance(answer, Wait) and until > now:
            if books.hold(caught, answer, remote, until, stranger=False):
                return
            answer = Refused("no room to wait", TOO_MUCH)
        if not isinstance(answer, Choice):
            reason = answer.reason if isinstance(answer, Refused) else "no answer in time"
            self._refuse(caught, flow, remote, demand, Refused(reason, TOO_MUCH), now)
            return
        packet = seal(caught.packet, answer.permutation, books.signal)
        books.plane.release(caught.number, packet, answer.epoch)

    def _fragment_choice(
        self, caught: Caught, remote: IPAddress, flow: PortFlow | None, demand: Demand,
        now: float, wall: float,
    ) -> Answer:  # fmt: skip
        if flow is None:  # only the flag changes, with whatever key
            place = place_of(caught.packet)
            flow = PortFlow(host(place.source), remote, place.protocol, 0, 0)
        return self._choice(caught.leg, flow, caught.epoch, demand, now, wall)

    def _choice(
        self, leg: Leg, flow: PortFlow, epoch: int | None, demand: Demand, now: float, wall: float
    ) -> Answer:
        """The key for a flow: the one it was born with, or that for new ones."""
        if leg is Leg.TUNNEL:
            return self._tunnel_choice(flow, epoch, now)
        books = self._books
        born = books.birth(leg, flow)
        lasting = demand.sticky or (flow.local, flow.remote) in self.shields
        if born is not None and lasting and books.keyring.still_good(born, wall):
            return born
        if demand.sticky:
            return self._sticky_choice(flow.remote, epoch, now, wall)
        return self.prospect(flow.remote, now, wall, secure=demand.secure)

    def _sticky_choice(
        self, remote: IPAddress, epoch: int | None, now: float, wall: float
    ) -> Answer:
        books = self._books
        known = books.known(remote, now)
        if known is None:
            wait = books.ask(remote, now, stranger=False)
            if not books.relation_keys(remote):
                return wait or Refused("too many questions", TOO_MUCH)
        relation = books.relations.find(remote)
        if relation is None:
            return Refused("no key", TOO_MUCH)
        publics = {key.public_key for key in relation.known_keys}
        if len(books.own) > 1 or len(publics) > 1:
            # Two bits of the day don't say which of several keys it was.  Of those that the peer
            # opens any will do: it knows the connection, and so tells which key opens to it.
            answer = self.prospect(remote, now, wall, secure=False)
            if isinstance(answer, Wait):
                return answer
        choices = books.keyring.kept(relation, epoch, now, wall)
        return choices[0] if choices else Refused("no key", TOO_MUCH)

    def _tunnel_choice(self, flow: PortFlow, epoch: int | None, now: float) -> Answer:
        books = self._books
        keys = books.tunnels.covering(flow.local, flow.remote, now)
        born = books.birth(Leg.TUNNEL, flow)
        if born is not None and any(key.number == born.number and key.seals for key in keys):
            return born
        sending = [key for key in keys if key.sending]
        kept = [key for key in keys if key.seals and of_tunnel(key).epoch == epoch]
        for key in (*kept, *sending):
            return of_tunnel(key)
        if any(key.until is None for key in keys):  # the peer does not have it yet
            return Wait(("tunnel",))
        return Refused("the tunnel has no key for ports", NO_TUNNEL_KEY)


def _flow(place: Place, local: IPAddress, remote: IPAddress) -> Flow:
    return Flow(
        local, remote, place.protocol, place.source_port, place.destination_port,
        fragment=place.fragment is Fragment.LATER,
    )  # fmt: skip


def _is_reset(packet: bytes, place: Place) -> bool:
    """RFC 9293 section 3.1: RST is the third bit of octet 13."""
    return place.protocol == TCP and bool(packet[place.offset + 13] & 0x04)

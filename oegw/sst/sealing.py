"""Port encryption without IO: which packets are sealed and opened, with which key, and which wait.

    plane:     packet_caught(caught)                      -> the plane is told what becomes of it
    DNS:       AskKeys(address) -> the directory learns -> keys_learned(address)
    IKE:       tunnel_keyed, send_sealed, tunnel_closed
    operator:  replace_policy, forget
    time:      next_timer, handle_timer

Each input takes ``now`` in monotonic seconds, and ``wall`` in seconds since 1970 where the day
counts; each returns orders.  What becomes of packets goes to the plane at once.  Strangers' input
never raises.

    sealer   packets on their way out: tunnel's key, or the static one if the path works
    opener   packets on their way in: of several keys the one that opens to a known connection
    prober   probes of the path
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oegw.packet.ip import PacketError
from oegw.sst.books import Books, Refused, Surroundings, Wait
from oegw.sst.holding import Held
from oegw.sst.interface import Caught, IPAddress, IPNetwork, Leg, PathState, Reason, Way
from oegw.sst.opener import Opener
from oegw.sst.orders import Order, TellShielded
from oegw.sst.paths import Path
from oegw.sst.permutation import NotEligible
from oegw.sst.prober import Prober
from oegw.sst.report import PathReport, Report, TunnelReport
from oegw.sst.sealer import Sealer
from oegw.sst.settings import SstSettings

_Pair = tuple[IPAddress, IPAddress]


@dataclass(slots=True)
class _Shield:
    """Gateways whose ports are to be encrypted; ``requests`` are answered by ``until``."""

    until: float
    requests: dict[int, None] = field(default_factory=dict)
    up: bool = False


class Sealing:
    def __init__(self, settings: SstSettings, given: Surroundings) -> None:
        self._books = Books(settings, given)
        self._sealer = Sealer(self._books)
        self._opener = Opener(self._books)
        self._prober = Prober(self._books)
        self._patience = settings.patience
        self._shields: dict[_Pair, _Shield] = {}
        self._prepared: set[IPAddress] = set()

    # -------------------------------------------------------------------- packets

    def packet_caught(self, caught: Caught, now: float, wall: float) -> list[Order]:
        """The plane keeps a packet and wants to know what becomes of it."""
        self._decide(caught, now, wall, now + self._patience)
        return self._orders()

    def prepare(self, remote: IPAddress, now: float, wall: float) -> list[Order]:
        """Look for the key, and probe the path, since a flow to this host may come."""
        answer = self._sealer.prospect(remote, now, wall, secure=False)
        if answer == Wait(("keys", remote)):
            self._prepared.add(remote)
        return self._orders()

    # ----------------------------------------------------------------------- keys

    def keys_learned(self, address: IPAddress, now: float, wall: float) -> list[Order]:
        """The directory knows more of a host, or knows that nobody answers."""
        self._books.asking.discard(address)
        if address in self._prepared:
            self._prepared.discard(address)
            self._sealer.prospect(address, now, wall, secure=False)
        self._go_on(("keys", address), now, wall)
        self._look_at_shields(now, wall)
        return self._orders()

    def tunnel_keyed(
        self, tunnel: int, local: IPNetwork, remote: IPNetwork, key: bytes, now: float
    ) -> list[Order]:
        """What comes through a tunnel sealed with ``key`` is opened from now on (SST-34)."""
        self._books.tunnels.keyed(tunnel, local, remote, key, now)
        self._books.trace.event("sst", "tunnel_keyed", tunnel=tunnel, local=local, remote=remote)
        return self._orders()

    def send_sealed(self, tunnel: int, now: float, wall: float) -> list[Order]:
        """The peer has the key, too: new flows are sealed with it."""
        books = self._books
        if books.tunnels.send_sealed(tunnel) is not None:
            books.forget_declines(Leg.TUNNEL)
            self._go_on(("tunnel",), now, wall)
        return self._orders()

    def send_unsealed(self, tunnel: int) -> list[Order]:
        """Nothing new is sealed with this tunnel's key, until ``send_sealed``."""
        self._books.tunnels.send_sealed(tunnel, sealed=False)
        return self._orders()

    def tunnel_closed(self, tunnel: int, now: float) -> list[Order]:
        """The tunnel is gone.  Its flows keep its key while the pair has another tunnel."""
        books = self._books
        key = books.tunnels.closed(tunnel, now)
        if key is not None:
            books.forget_tunnel(key)
        books.trace.event("sst", "tunnel_closed", tunnel=tunnel)
        return self._orders()

    # -------------------------------------------------------------------- shields

    def shield(
        self, request: int, local: IPAddress, remote: IPAddress, now: float, wall: float
    ) -> list[Order]:
        """Encrypt the ports of IKE and ESP in UDP; answered by ``TellShielded``."""
        shield = self._shields.setdefault((local, remote), _Shield(now + self._patience))
        if not shield.requests:
            shield.until = now + self._patience
        shield.requests[request] = None
        self._look_at_shields(now, wall)
        return self._orders()

    def came_shielded(self, local: IPAddress, remote: IPAddress, now: float) -> bool:
        """Whether IKE or ESP in UDP of a gateway came with its ports sealed of late."""
        return now < self._opener.came_shielded.get((local, remote), now)

    def unshield(self, local: IPAddress, remote: IPAddress) -> list[Order]:
        if self._shields.pop((local, remote), None) is not None:
            self._sealer.shields.discard((local, remote))
            self._books.plane.unshield(local, remote)
        return self._orders()

    def _look_at_shields(self, now: float, wall: float) -> None:
        for (local, remote), shield in list(self._shields.items()):
            if not shield.requests:
                continue
            answer = self._sealer.prospect(remote, now, wall, secure=False)
            if isinstance(answer, Wait) and shield.until > now:
                continue
            reason = None
            if isinstance(answer, Refused):
                reason = answer.reason
            elif isinstance(answer, Wait):
                reason = "no answer in time"
            elif not shield.up:
                shield.up = True
                self._sealer.shields.add((local, remote))
                self._books.plane.shield(local, remote)
            self._books.orders += [TellShielded(request, reason) for request in shield.requests]
            self._books.trace.event("sst", "shielded", remote=remote, reason=reason)
            shield.requests.clear()
            if not shield.up:
                del self._shields[local, remote]

    # ------------------------------------------------------------------- operator

    def replace_policy(self, now: float, wall: float) -> list[Order]:
        """Another policy holds: flows stay, what was declined and what waits is asked again."""
        self._books.forget_declines()
        for held in self._books.holding.take_all():
            self._decide(held.caught, now, wall, held.until)
        return self._orders()

    def forget(self, network: IPNetwork) -> int:
        """Forget keys, paths and flows of hosts; returns of how many hosts something was known."""
        books = self._books
        hosts = set(books.relations.forget(network))
        hosts |= {remote for _, remote in books.declined if remote in network}
        hosts |= {path.gateway for path in books.paths if path.gateway in network}
        for remote in hosts:
            books.directory.forget(remote)
            books.paths.forget(remote)
            for leg in Leg:
                books.declined.pop((leg, remote), None)
                books.plane.forget(leg, remote)
        for place in [each for each in books.born if each[1].remote in hosts]:
            del books.born[place]
        for pair in [each for each in books.fates if each[1] in network]:
            del books.fates[pair]
        return len(hosts)

    def close(self) -> None:
        """Packets that wait are dropped."""
        for held in self._books.holding.take_all():
            self._books.drop(held.caught, "stopping")

    # ----------------------------------------------------------------------- time

    def next_timer(self) -> float | None:
        """When ``handle_timer`` has something to do."""
        waiting = (shield.until for shield in self._shields.values() if shield.requests)
        moments = [
            self._books.holding.next_end(),
            self._books.paths.next_timer(),
            self._books.tunnels.next_end(),
            *waiting,
        ]
        return min((moment for moment in moments if moment is not None), default=None)

    def handle_timer(self, now: float, wall: float) -> list[Order]:
        books = self._books
        for decided in books.paths.handle_timer(now, wall):
            self._path_decided(self._prober.decided(decided), now, wall)
        for held in books.holding.overdue(now):
            self._too_late(held, now, wall)
        books.tunnels.tidy(now)
        self._look_at_shields(now, wall)
        return self._orders()

    # -------------------------------------------------------------------- snapshot

    def report(self, now: float) -> Report:
        """For ``oegw status``."""
        books = self._books
        return Report(
            paths=tuple(_path_report(path, now) for path in books.paths if path.shown is not None),
            tunnels=tuple(
                TunnelReport(key.tunnel, key.local, key.remote, key.sending)
                for key in books.tunnels
            ),
            shields=tuple(self._sealer.shields),
            hosts=len(books.relations),
            held=len(books.holding),
            questions=len(books.asking),
            fates=dict(books.fates),
        )

    # --------------------------------------------------------------------- details

    def _decide(self, caught: Caught, now: float, wall: float, until: float) -> None:
        self._books.moment = now
        try:
            if caught.reason is Reason.PROBE:
                path = self._prober.packet(caught, now, wall, until)
                if path is not None:
                    self._path_decided(path, now, wall)
            elif caught.reason is Reason.QUOTE:
                if caught.way is Way.OPEN:
                    self._opener.quote(caught, now, wall, until)
                else:
                    self._sealer.quote(caught, now, wall)
            elif caught.way is Way.OPEN:
                self._opener.packet(caught, now, wall, until)
            else:
                self._sealer.packet(caught, now, wall, until)
        except (PacketError, NotEligible) as error:
            self._books.drop(caught, error.trigger)

    def _too_late(self, held: Held, now: float, wall: float) -> None:
        caught = held.caught
        waited_for = held.waits_for[0] if isinstance(held.waits_for, tuple) else held.waits_for
        reason = f"no answer in time ({waited_for})"
        if caught.reason is Reason.PROBE:
            self._prober.too_late(caught)
        elif caught.way is Way.OPEN:
            self._opener.too_late(caught, now, wall)
        else:
            self._sealer.too_late(caught, reason, now)

    def _path_decided(self, path: Path, now: float, wall: float) -> None:
        self._go_on(("path", path.gateway, path.public_key), now, wall)
        self._look_at_shields(now, wall)

    def _go_on(self, what: tuple[object, ...], now: float, wall: float) -> None:
        for held in self._books.holding.take(what):
            self._decide(held.caught, now, wall, held.until)

    def _orders(self) -> list[Order]:
        orders = list(self._books.orders)
        self._books.orders.clear()
        return orders


def _path_report(path: Path, now: float) -> PathReport:
    shown = path.shown
    assert shown is not None
    return PathReport(
        gateway=path.gateway,
        family=path.gateway.version,
        state=path.state,
        since=now - path.since,
        last_probe=None if path.last_probe is None else now - path.last_probe,
        day=None if path.agreed is None else path.agreed.day,
        algorithm=None if path.agreed is None else path.agreed.algorithm,
        peer_day=None if path.announced is None else path.announced.day,
        source=shown.source,
        trust=shown.trust,
        key=path.peer.hex(),
        used=path.state is PathState.WORKS and path.used_until > now,
    )

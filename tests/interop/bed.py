"""The test bed: a site, the two gateways in it, the captures, and what a cell proves with them."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tests.interop.capture import Capture, Packet, in_clear, kinds
from tests.interop.cells import PLACES, Cell, Role
from tests.interop.ours import Oegw
from tests.interop.processes import InteropError, wait_until
from tests.interop.site import FAR_NETWORK, NEAR_NETWORK, End, Middle, Site
from tests.interop.strongswan import StrongSwan
from tests.interop.terms import Agreed, KeyPair, Party, Terms
from tests.interop.traffic import MARK, Stream, first_packets, ping

NAMES = {"near": "@ours.example", "far": "@strongswan.example"}
SETTLE_SECONDS = 15.0  # until both sides say the same
LONGEST_STORY = 12_000  # characters of each log in a failure's report


class Gateway(Protocol):
    """What both programs can be told and asked."""

    def configure(self, terms: Terms) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def lose_power(self) -> None: ...
    def initiate(self) -> None: ...
    def terminate(self, what: str) -> None: ...
    def forget(self) -> None: ...
    def channels(self) -> list[str]: ...
    def agreed(self) -> list[Agreed]: ...
    def position(self) -> int: ...
    def story(self, since: int = 0) -> str: ...


def _strongswan(end: End, other: End, directory: Path, plugin: str) -> StrongSwan:
    return StrongSwan(end.gateway, directory, plugin, other.network, end.inside, end.router)


@dataclass(slots=True)
class Bed:
    """Put up once for each kind of middle, used by one cell after the other."""

    where: str
    site: Site
    directory: Path
    near: Oegw | StrongSwan
    far: StrongSwan
    captures: list[Capture]
    keys: tuple[KeyPair, KeyPair]
    marks: list[int]
    positions: tuple[int, int] = (0, 0)
    cell: Cell | None = None
    role: Role = Role.OURS

    @classmethod
    def put_up(
        cls, where: str, middle: Middle, keys: tuple[KeyPair, KeyPair], stand_in: bool
    ) -> Bed:
        """Make the namespaces, start charon.  ``stand_in``: strongSwan is on our side, too."""
        datapath, plugin = PLACES[where]
        site = Site(middle)
        directory = Path(tempfile.mkdtemp(prefix="oegw-interop-"))
        for side in ("near", "far"):
            (directory / side).mkdir()
        near: Oegw | StrongSwan
        if stand_in:
            near = _strongswan(site.near, site.far, directory / "near", plugin)
        else:
            near = Oegw(site.near.gateway, directory / "near", datapath)
        far = _strongswan(site.far, site.near, directory / "far", plugin)
        bed = cls(where, site, directory, near, far, [], keys, [])
        try:
            site.put_up()
            bed.captures = [
                Capture(site.middle, interface, directory) for interface in ("near0", "far0")
            ]
            far.start()
            for capture in bed.captures:
                capture.ready()
        except BaseException:
            bed.take_down(keep=False)
            raise
        return bed

    def take_down(self, keep: bool) -> None:
        try:
            for gateway in (self.near, self.far):
                gateway.stop()
            for capture in self.captures:
                capture.end()
        finally:
            self.site.close()
            if not keep:
                shutil.rmtree(self.directory)

    # ------------------------------------------------------------- one cell

    def begin(self, cell: Cell, role: Role, **ours: int) -> None:
        """Configure both sides for a cell, and start ours.

        ``ours``: lifetimes for our side alone (strongSwan's own are far longer, so that it is known
        who acts), and ``dead_peer_seconds``, for both.
        """
        self.cell, self.role = cell, role
        terms = self.terms(cell)
        self.positions = self.near.position(), self.far.position()
        self.far.forget()
        self.far.configure(
            replace(terms.mirrored(), dead_peer_seconds=ours.get("dead_peer_seconds"))
        )
        self.near.configure(replace(terms, **ours))  # type: ignore[arg-type]
        self.near.start()
        self.marks = [capture.mark() for capture in self.captures]

    def finish(self) -> None:
        """Leave nothing of a cell to the next one."""
        self.near.stop()
        if self.far.process is None or not self.far.process.running:
            self.far.start()
        self.far.forget()

    def terms(self, cell: Cell) -> Terms:
        """As our side has them."""
        near, far = (
            self._party(cell, side, end, key)
            for side, end, key in zip(
                ("near", "far"), (self.site.near, self.site.far), self.keys, strict=True
            )
        )
        return Terms(
            near,
            far,
            cell.phase1,
            cell.phase2,
            None if cell.pfs == "none" else cell.pfs,
            cell.encapsulation,
            cell.port_encryption,
            cell.fragment,
        )

    def _party(self, cell: Cell, side: str, end: End, key: KeyPair) -> Party:
        identity = NAMES[side] if cell.identities == "names" else end.outside
        network = f"{self.host(side)[1]}/32" if cell.selectors == "hosts" else end.network
        return Party(end.outside, end.public, identity, network, key)

    def host(self, side: str) -> tuple[str, str]:
        """Namespace and address of the host that pings on this side.

        With selectors of single hosts strongSwan stands for itself, since its user-space ESP wants
        an address of the tunnel's own network on its own machine; ours stands for Alice.
        """
        assert self.cell is not None
        end, gateway = (self.site.near, self.near) if side == "near" else (self.site.far, self.far)
        if self.cell.selectors == "hosts" and isinstance(gateway, StrongSwan):
            return end.gateway, end.inside
        return end.host, end.host_address

    @property
    def initiator(self) -> Gateway:
        return self.near if self.role is Role.OURS else self.far

    def bring_up(self) -> None:
        """The initiator begins; once the tunnel is up, all pings from both sides arrive.

        Only the packets that begin a tunnel of ours may be lost: strongSwan as responder installs
        its SAs when it has read quick mode message 3, and on a machine under load what we send a
        little later can come before that.
        """
        self.initiator.initiate()
        if self.initiator is self.near and isinstance(self.near, Oegw):
            first_packets(self.host("near")[0], self.host("far")[1])
        self.agreed()
        self.ping_both()

    def ping_both(self) -> None:
        """Pings from both sides, of which none is lost."""
        (near, alice), (far, bob) = self.host("near"), self.host("far")
        ping(near, bob)
        ping(far, alice)

    def stream(self, side: str) -> Stream:
        """A ping without end from the host of ``near`` or ``far`` to the other."""
        (namespace, _), (_, address) = (
            self.host(side),
            self.host("far" if side == "near" else "near"),
        )
        return Stream(side, namespace, address, self.directory)

    # --------------------------------------------------------------- proofs

    def agreed(self) -> tuple[Agreed, Agreed]:
        """The one tunnel as each side has it, once both name the same SPIs."""

        def same() -> tuple[Agreed, Agreed] | None:
            ours, theirs = self.near.agreed(), self.far.agreed()
            if len(ours) != 1 or len(theirs) != 1:
                return None
            (a,), (b,) = ours, theirs
            return (a, b) if a.spis == (b.spis[1], b.spis[0]) else None

        try:
            pair = wait_until("one tunnel of which both sides say the same", same, SETTLE_SECONDS)
        except InteropError as error:
            raise InteropError(
                f"{error}\n"
                f"ours says {self.near.agreed()}, channels {self.near.channels()}\n"
                f"strongSwan says {self.far.agreed()}, channels {self.far.channels()}"
            ) from None
        assert pair is not None
        return pair

    def check_negotiated(self, initiator: Role | None = None) -> None:
        """Both sides use what the cell asks for, and nothing else."""
        cell, terms = self.cell, self.near.terms
        assert cell is not None
        assert terms is not None
        for agreed, view in zip(self.agreed(), (terms, terms.mirrored()), strict=True):
            assert agreed.phase1 == cell.phase1
            assert agreed.phase2 == cell.phase2
            assert agreed.pfs in (None, cell.pfs)
            assert (agreed.local_network, agreed.remote_network) == (
                view.local.network,
                view.remote.network,
            )
            assert agreed.remote_identity.lstrip("@") == view.remote.identity.lstrip("@")
            begun_here = (initiator or self.role) is (
                Role.OURS if view is terms else Role.STRONGSWAN
            )
            assert agreed.initiator == begun_here
        assert len(self.near.channels()) == 1
        assert len(self.far.channels()) == 1
        assert self.far.agreed()[0].pfs == cell.pfs, "strongSwan says what group PFS has"

    @property
    def in_udp(self) -> bool:
        """Whether ESP has to go in UDP: strongSwan's user-space ESP knows nothing else, and ours
        is faster so."""
        assert self.cell is not None
        ours = isinstance(self.near, Oegw) and self.near.datapath == "userspace"
        return (
            self.far.plugin == "kernel-libipsec"
            or self.cell.encapsulation == "udp"
            or (self.cell.encapsulation == "auto" and ours)
            or self.site.kind is not Middle.BRIDGE
        )

    def crossed(self) -> list[Packet]:
        """What was on the link of our gateway, and behind a NAT on that of the other, so far."""
        return [
            packet
            for capture, mark in zip(self.captures, self.marks, strict=True)
            for packet in capture.since(mark)
        ]

    def check_capture(self, at_least: int = 12) -> None:
        """Nothing crossed in clear, and the pings did cross as ESP, in the form that was agreed.

        ``at_least``: packets of ESP on each link; six pings and their answers are twelve.
        """
        wanted, other = ("esp-in-udp", "esp") if self.in_udp else ("esp", "esp-in-udp")
        for capture, mark in zip(self.captures, self.marks, strict=True):
            packets = capture.since(mark)
            clear = in_clear(packets, (NEAR_NETWORK, FAR_NETWORK), MARK)
            assert not clear, "in clear on the public link:\n" + "\n".join(clear[:20])
            seen = kinds(packets)
            assert seen[wanted] >= at_least, f"{dict(seen)}: fewer than {at_least} of {wanted}"
            assert not seen[other], f"{dict(seen)}: some of {other}"

    def stories(self) -> list[tuple[str, str]]:
        """The tails of the logs of this cell, for the report of a failure."""
        logs = zip(
            (type(self.near).__name__ + " (ours)", "strongSwan"),
            (self.near, self.far),
            self.positions,
            strict=True,
        )
        return [(name, gateway.story(since)[-LONGEST_STORY:]) for name, gateway, since in logs]

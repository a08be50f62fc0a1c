"""A peer behind a NAT turns up elsewhere, RFC 3947 section 7.

Only what an authenticated message or ESP packet has shown counts, and never at the side
that is itself behind the NAT.  All channels and tunnels that led this peer to the old
place lead to the new one, since they share one mapping of its translator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ike.events import PeerMoved, TransportAddress
from ike.station import Station
from ike.v1.directory import Directory
from ike.v1.nat import Path

if TYPE_CHECKING:
    from ike.v1.main_mode import Peer
    from ike.v1.tunnel import Tunnel


def peer_moved(
    station: Station,
    directory: Directory,
    channel: int,
    peer: Peer,
    old: Path,
    remote: TransportAddress,
) -> None:
    """``peer``, whose datagrams came on ``old``, is at ``remote`` from now on.

    ``channel`` is the number of the channel on which, or under which, it was heard.
    """
    for session in directory.between(old.local.address, old.remote.address):
        if session.path == old and session.end is not None and session.end.peer == peer:
            directory.move_session(session, remote)
    moved: list[Tunnel] = []
    for tunnel in directory.tunnels.values():
        if tunnel.path == old and tunnel.peer == peer:
            directory.move_tunnel(tunnel, remote)
            tunnel.moved(replace(old, remote=remote))
            moved.append(tunnel)
    # A tunnel whose SAs nobody has seen yet will come with the new address.
    seen = tuple(tunnel.number for tunnel in moved if tunnel.shown)
    station.emit(PeerMoved(channel, remote, seen))

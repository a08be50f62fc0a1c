"""The keying core's events, as lines of the trace."""

from __future__ import annotations

import ike.events as keying
from oegw.trace import Trace


def trace_keying(trace: Trace, event: keying.Event, received: float) -> None:
    """Write an event down; ``received``: when the last datagram came, in seconds since 1970."""
    match event:
        case keying.MessageSent():
            trace.event(
                "ike", "sent", message=event.name, channel=event.channel,
                local=event.local.address, remote=event.remote.address, port=event.remote.port,
                size=event.size,
                retransmission=event.retransmission,
            )  # fmt: skip
        case keying.MessageReceived():
            trace.event(
                "ike", "received", message=event.name, channel=event.channel,
                remote=event.remote.address, port=event.remote.port, size=event.size,
                time=received,
            )  # fmt: skip
        case keying.MessageDropped():
            trace.drop("ike", event.trigger, remote=event.remote.address, detail=event.detail)
        case keying.KeyingChannelEstablished():
            trace.event(
                "ike", "established", channel=event.channel, local=event.local.address,
                remote=event.remote.address, identity=event.identity,
                initiator=event.initiator, proposal=event.proposal,
                seconds=round(event.seconds, 6),
            )  # fmt: skip
        case keying.KeyingChannelClosed():
            trace.event("ike", "closed", channel=event.channel, reason=event.reason)
        case keying.PeerMoved():
            trace.event(
                "ike", "peer_moved", channel=event.channel, remote=event.remote.address,
                port=event.remote.port,
            )  # fmt: skip
        case keying.TunnelExpiring():
            trace.event("tunnel", "expiring", tunnel=event.tunnel)
        case keying.TunnelProposed():
            trace.event(
                "tunnel", "proposed", tunnel=event.tunnel, identity=event.identity,
                local=event.local_selector.network, remote=event.remote_selector.network,
            )  # fmt: skip

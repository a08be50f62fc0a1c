"""What the settings mean for the gateway's parts: IKE, the coordinator, interception."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import rsa

from ike.configuration import Configuration
from ike.events import Identity
from ike.signer import Signing
from oegw.box import own_settings
from oegw.environment import Environment
from oegw.hold import HoldSettings
from oegw.intercept.interface import InterceptSettings
from oegw.ledger import CoordinatorSettings
from oegw.nat import Nat, Translation
from oegw.settings import Settings
from policy.flow import IPAddress


def keying_configuration(
    settings: Settings, signer: Signing, lost_contacts: frozenset[Identity]
) -> Configuration:
    """How IKE is spoken.  ``lost_contacts``: peers that may hold tunnels of an earlier run."""
    ike = settings.ike
    return Configuration(
        private_key=signer,
        identity=settings.gateway.identity,
        profiles=ike.profiles,
        retransmit_first=ike.retransmit_first,
        retransmit_tries=ike.retransmit_tries,
        channel_lifetime=ike.channel_lifetime,
        tunnel_lifetime=ike.tunnel_lifetime,
        half_open_limit=ike.half_open_limit,
        half_open_per_source=ike.half_open_per_source,
        channel_proposals=ike.channel_proposals,
        tunnel_proposals=ike.tunnel_proposals,
        pfs=ike.pfs,
        channel_bytes=ike.channel_bytes,
        tunnel_bytes=ike.tunnel_bytes,
        encapsulation=settings.datapath.encapsulation,
        keepalive_interval=ike.keepalive_interval,
        dpd_interval=ike.dpd_interval,
        dpd_tries=ike.dpd_tries,
        lost_contacts=lost_contacts,
        sst=settings.encrypts_ports,
    )


def coordinator_settings(
    settings: Settings,
    environment: Environment,
    key: rsa.RSAPublicKey,
    nat: Nat,
    contacts: frozenset[Identity],
    came_shielded: Callable[[IPAddress, IPAddress], bool],
) -> CoordinatorSettings:
    """What the coordinator goes by."""
    hold = settings.intercept
    return CoordinatorSettings(
        addresses=environment.addresses,
        peers=settings.peers,
        local_reverse=settings.dns.local_reverse,
        unsigned_delegation=settings.dns.unsigned_delegation,
        lifespans=settings.lifespans,
        hold=HoldSettings(hold.hold, hold.hold_packets, hold.hold_bytes),
        setups_per_source=hold.setups_per_source,
        contacts=contacts,
        setups=hold.setups,
        setups_per_second=hold.setups_per_second,
        replay_window=settings.datapath.replay_window,
        nat=nat,
        multihoming=settings.multihoming,
        own=own_settings(settings, key),
        decision_points=settings.decision_points,
        encrypts_ports=settings.encrypts_ports,
        came_shielded=came_shielded,
    )


def intercept_settings(
    settings: Settings,
    environment: Environment,
    resolvers: tuple[IPAddress, ...],
    translations: tuple[Translation, ...],
) -> InterceptSettings:
    """What is trapped here."""
    intercept = settings.intercept
    return InterceptSettings(
        outside=environment.outside,
        tunnel_interface=settings.datapath.tunnel_interface,
        mark_mask=intercept.mark_mask,
        assurance_mask=intercept.assurance_mask,
        encrypted_mark=intercept.encrypted_mark,
        queue=intercept.queue,
        resolvers=resolvers,
        local_resolver=any(r.is_loopback or r in environment.own for r in resolvers),
        translations=translations,
        demanded=settings.socks.demands_encryption,
    )

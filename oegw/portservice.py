"""Port encryption as the daemon runs it: what it is made of, and what it is told.

The service and the DNS forwarder are made once, at the start; commands about ports reach the
service here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from dnsrecords.outcome import SstKeyOutcome
from dnsrecords.resolver import Resolver
from oegw import commands as do
from oegw.environment import Environment
from oegw.gateway import Gateway
from oegw.settings import Settings
from oegw.sst.forwarder import Forwarder, clients_of
from oegw.sst.interface import TunnelPorts, Wish
from oegw.sst.plane.kernel import NftPlane, remove_leftovers
from oegw.sst.plane.settings import PlaneSettings
from oegw.sst.service import Given, SstService
from oegw.trace import Trace
from policy.flow import Flow, IPAddress
from policy.rule import Require

PortCommand = do.SealTunnel | do.SendSealed | do.SendUnsealed | do.UnsealTunnel | do.UnshieldGateway
"""What has no answer.  They come only while port encryption runs."""


def port_encryption(
    settings: Settings,
    environment: Environment,
    gateway: Gateway,
    look_up: Callable[[IPAddress, bool], Awaitable[SstKeyOutcome]],
    mark: int,
    trace: Trace,
) -> SstService | None:
    """None where nothing needs it.  ``mark``: of the gateway's own packets.

    Raises KeyFileError and SstError.
    """
    if not settings.encrypts_ports:
        return None

    def wish(flow: Flow) -> Wish:
        """What the policy says of a flow, by its source behind our own NAT."""
        rule = gateway.nat.seen(flow, gateway.table).rule
        return Wish(rule.sst, rule.sst_strength, rule.require is Require.SECURE)

    plane = _plane_settings(settings, environment, mark)
    given = Given(environment.addresses, mark, wish, look_up)
    return SstService(settings.sst, NftPlane(plane, trace), given, trace)


async def no_port_encryption(
    settings: Settings, environment: Environment, mark: int, trace: Trace
) -> None:
    """Take away what an earlier run left, where the policy asks for none any more.

    Raises SstError.
    """
    if await remove_leftovers(_plane_settings(settings, environment, mark)):
        trace.event("sst", "leftovers_removed")


def _plane_settings(settings: Settings, environment: Environment, mark: int) -> PlaneSettings:
    return PlaneSettings(
        outside=environment.outside,
        tunnel_interface=settings.datapath.tunnel_interface,
        own_mark=mark,
        own_mask=settings.intercept.mark_mask,
        sst=settings.sst,
    )


def dns_forwarder(
    settings: Settings,
    environment: Environment,
    gateway: Gateway,
    resolver: Resolver,
    servers: tuple[IPAddress, ...],
    service: SstService | None,
    mark: int,
    trace: Trace,
) -> Forwarder | None:
    """None where none is asked for; ``servers`` answer what it passes on."""
    listen = settings.sst.forwarder
    if service is None or listen is None:
        return None
    clients = clients_of(listen[0], environment.attached, environment.addresses)
    return Forwarder(
        listen, servers, clients, resolver, service.directory, trace,
        wanted=lambda: settings.sst.private_key is not None,  # with what would keys be used?
        clock=time.monotonic, may_ask=gateway.may_look_up, mark=mark,
    )  # fmt: skip


def obey(ports: TunnelPorts, command: PortCommand) -> None:
    """Hand a command on."""
    match command:
        case do.SealTunnel(tunnel=number, local=local, remote=remote, key=key):
            ports.tunnel_keyed(number, local, remote, key)
        case do.SendSealed(tunnel=number):
            ports.send_sealed(number)
        case do.SendUnsealed(tunnel=number):
            ports.send_unsealed(number)
        case do.UnsealTunnel(tunnel=number):
            ports.tunnel_closed(number)
        case do.UnshieldGateway(local=here, remote=there):
            ports.unshield(here, there)

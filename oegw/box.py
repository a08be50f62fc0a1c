"""What the settings mean on this box, with its interfaces and addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from cryptography.hazmat.primitives.asymmetric import rsa

from oegw.environment import Environment, UnsuitableBox
from oegw.nat import Nat, nat_of
from oegw.selfknowledge import OwnSettings
from oegw.settings import Settings
from policy.builtin import builtin_rules
from policy.table import PolicyTable


def policy_table(settings: Settings, environment: Environment) -> PolicyTable:
    """The user's rules and the exemptions of this box.  Raises PolicyError."""
    managing = settings.management.addresses
    builtin = builtin_rules(environment.attached, environment.own, managing)
    return PolicyTable((*settings.rules, *builtin), settings.default)


def own_settings(settings: Settings, key: rsa.RSAPublicKey) -> OwnSettings | None:
    """What the DNS has to say of ourselves; None if that is not looked at."""
    name = settings.gateway.identity
    if not settings.dns.check_own:
        return None
    return OwnSettings(key, name if isinstance(name, str) else None, settings.gateway.fqdn)


def check_peers(settings: Settings, environment: Environment) -> None:
    """Raises UnsuitableBox if a configured peer can't be reached from any of our addresses."""
    families = {address.version for address in environment.addresses}
    for name, peer in settings.peers.items():
        address = peer.address
        if isinstance(address, IPv4Address | IPv6Address) and address.version not in families:
            raise UnsuitableBox(
                f"rule {name!r}: peer {address}: this box has no outer IPv{address.version} address"
            )


def nat_of_box(settings: Settings, environment: Environment) -> Nat:
    """What this box translates.  Raises UnsuitableBox."""
    try:
        return nat_of(
            settings.nat,
            environment.addresses,
            named=(settings.gateway.identity or settings.gateway.fqdn) is not None,
            served=settings.dns.local_reverse,
            translates=environment.translates,
        )
    except ValueError as error:
        raise UnsuitableBox(str(error)) from None

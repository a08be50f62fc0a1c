"""How each fact about this box is come by."""

from __future__ import annotations

from pathlib import Path

from oegw import config
from oegw.config import ConfigError
from oegw.doctor import asking, filing, reading
from oegw.doctor.fact import Fact
from oegw.doctor.facts import IKE_PORTS, Facts
from oegw.environment import Environment, UnsuitableBox, survey
from oegw.intercept.firewall import Gap
from oegw.keys import read_private
from oegw.rollover import Rollover
from oegw.settings import GatewaySettings, Settings
from policy.flow import IPAddress


def facts_of(path: Path) -> Facts:
    """Those of this box, and of the configuration at ``path``."""

    def examine() -> tuple[Settings, tuple[str, ...]]:
        try:
            return config.examine(path)
        except ConfigError as error:
            return Settings(), tuple(error.problems)

    def look_around() -> Environment | UnsuitableBox:
        try:
            return survey(settings().interfaces.outside, settings().gateway.addresses)
        except UnsuitableBox as error:
            return error

    def settings() -> Settings:
        return examined()[0]

    def control_socket() -> Path:
        """Also of a configuration that has other faults."""
        try:
            return config.control_socket(path)
        except ConfigError:
            return GatewaySettings().control_socket

    def seen_inside() -> list[IPAddress]:
        outside = facts.environment.outside
        attached = [net for link in facts.inside for net in (a.network for a in link.addresses)]
        return [
            address
            for interface, address in facts.routing().neighbours
            if interface not in outside
            and not address.is_link_local
            and any(address in net for net in attached)
        ]

    def gaps() -> tuple[Gap, ...]:
        from oegw.intercept.interface import InterceptSettings
        from oegw.intercept.nft import Nft

        reading.only_root("packet rules")
        nft = Nft()
        try:
            found = nft.ruleset().gaps(
                InterceptSettings(
                    facts.environment.outside,
                    settings().datapath.tunnel_interface,
                    settings().intercept.mark_mask,
                    settings().intercept.assurance_mask,
                )
            )
        finally:
            nft.close()
        return tuple(found)

    def rollover() -> Rollover | None:
        from oegw.publishing import KeyChange

        return KeyChange(settings(), lambda: None).state()

    examined = Fact(examine)
    facts = Facts(
        path,
        text=Fact(lambda: path.read_text(encoding="utf-8")),
        examined=examined,
        surveyed=Fact(look_around),
        own_key=Fact(lambda: read_private(settings().gateway.private_key).public_key()),
        links=Fact(reading.links),
        routing=Fact(reading.routing),
        sysctls=Fact(reading.sysctls),
        nftables=Fact(reading.nftables),
        iptables=Fact(reading.iptables),
        gaps=Fact(gaps),
        xfrm=Fact(reading.xfrm),
        processes=Fact(reading.processes),
        sockets=Fact(lambda: reading.sockets(IKE_PORTS, dict(facts.processes()))),
        kernel=Fact(lambda: reading.kernel(settings(), facts.daemon().status is not None)),
        clock=Fact(lambda: reading.clock(path, settings().gateway.private_key)),
        limits=Fact(reading.limits),
        files=Fact(lambda: filing.files(path, settings())),
        host=Fact(filing.host),
        names=Fact(lambda: asking.names(settings(), facts.environment.addresses, seen_inside())),
        rollover=Fact(rollover),
        daemon=Fact(lambda: asking.daemon(control_socket(), dict(facts.processes()))),
    )
    return facts

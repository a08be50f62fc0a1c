"""Where the SOCKS server of a configuration listens on this box."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from oegw.configfile import ConfigError
from oegw.environment import Links, links
from oegw.settings import Settings
from oegw.socks5.settings import Listener, SocksSettings

LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


def settings_of(settings: Settings, box: Links | None = None) -> SocksSettings:
    """``[socks]``, with what it takes from this box: where it listens, and on which interface.

    An address is reachable by every interface of a Linux box, so a listener that asks for no
    password belongs to an inside interface.  Raises ConfigError.
    """
    socks, tunnel = settings.socks, settings.datapath.tunnel_interface
    box = box or links(settings.interfaces.outside, tunnel)
    inside = {address: name for name, address in box.inside if name != tunnel}
    if not socks.listeners:
        ours = [Listener(each, interface=name) for each, name in inside.items()]
        loopback = [Listener(each) for each in LOOPBACK if each.version in box.families]
        return replace(socks, listeners=(*ours, *loopback))
    problems = []
    listeners = []
    for number, listener in enumerate(socks.listeners, 1):
        place, interface = f"socks.listener[{number}]", listener.interface
        if interface is not None and interface not in box.names:
            problems.append(f"{place}.interface: there is no interface {interface!r}")
        if listener.authentication == "none":
            if not listener.address.is_loopback:
                interface = interface or inside.get(listener.address)
                if interface is None:
                    reason = "neither loopback nor of an inside interface: give interface, or"
                    text = f'{listener.address} is {reason} authentication = "password"'
                    problems.append(f"{place}.address: {text}")
            if interface is not None and interface in (*box.outside, tunnel):
                where = "the tunnels' interface" if interface == tunnel else "outside"
                text = f"{interface} is {where}: strangers must show a password"
                problems.append(f"{place}.authentication: {text}")
        listeners.append(replace(listener, interface=interface))
    if problems:
        raise ConfigError(problems)
    return replace(socks, listeners=tuple(listeners))

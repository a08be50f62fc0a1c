"""Steps that change the network under way: routes, addresses, the mappings of a NAT."""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import Any

from lablib import network, whole
from lablib.errors import LabError
from lablib.stage import Stage, check_keys
from lablib.topology import twin_address, twin_network


def _do(stage: Stage, host: str, argv: list[str]) -> None:
    result = stage.lab.run.call(host, argv)
    if result.returncode:
        raise LabError(f"{host}: {' '.join(argv)}: {(result.stderr or result.stdout).strip()}")


def set_route(stage: Stage, step: dict[str, Any]) -> str:
    """Change a route of ``host``: ``to`` (a network or "default") by way of ``via``.

    ``mtu``: no larger packet goes there.
    """
    check_keys(step, {"host", "to", "via", "mtu"})
    mtu = ["mtu", str(step["mtu"])] if "mtu" in step else []
    _do(stage, step["host"], ["ip", "route", "replace", step["to"], "via", step["via"], *mtu])
    return f"{step['to']} by way of {step['via']}"


def _change_address(
    stage: Stage, name: str, interface: str, old: IPv4Interface, new: IPv4Interface
) -> None:
    """Take an IPv4 address away, which removes its routes, and put another one there."""
    host = stage.lab.topology.host(name)
    _do(stage, name, ["ip", "address", "delete", str(old), "dev", interface])
    _do(stage, name, ["ip", "address", "add", str(new), "dev", interface])
    for route in host.routes:
        _do(stage, name, ["ip", "route", "replace", str(route.to), "via", str(route.via)])


def renumber(stage: Stage, step: dict[str, Any]) -> str:
    """The IPv4 address of ``host`` on link ``on`` becomes ``to``; its routes stay.

    On a NAT host this also ends the mappings of the old address.
    """
    check_keys(step, {"host", "on", "to"})
    interface = stage.lab.topology.host(step["host"]).interface_on(step["on"])
    old = stage.addresses.get((step["host"], step["on"]), interface.addresses[0])
    new = IPv4Interface(f"{step['to']}/{old.network.prefixlen}")
    _change_address(stage, step["host"], interface.name, old, new)
    stage.addresses[step["host"], step["on"]] = new
    return f"{old.ip} became {new.ip}"


def plug(stage: Stage, step: dict[str, Any]) -> str:
    """The cable of ``host`` to link ``on`` is ``plugged`` in or out; out, the host is gone."""
    check_keys(step, {"host", "on", "plugged"})
    host = stage.lab.topology.host(step["host"])
    port = network.port_name(host, host.interface_on(step["on"]))
    state = "up" if step["plugged"] else "down"
    _do(stage, network.CABLES, ["ip", "link", "set", port, state])
    return f"plugged {'in' if step['plugged'] else 'out'}"


def write_file(stage: Stage, step: dict[str, Any]) -> str:
    """A file that a configuration names as ``$RUN/FILE`` gets this ``text``."""
    check_keys(step, {"file", "text_of_file"})
    path = stage.lab.run.directory / step["file"]
    if path.parent != stage.lab.run.directory or not path.exists():
        raise LabError(f"write-file: the scenario has no file {step['file']}")
    whole.put(path, step["text_of_file"])
    return f"{len(step['text_of_file'].splitlines())} lines"


def interface(stage: Stage, step: dict[str, Any]) -> str:
    """The interface of ``host`` on link ``on`` goes ``up`` or down, as its operator would have it.

    Unlike `plug`, the host itself knows: its routes by that interface are gone, and its IPv6
    addresses; up again, it gets them as at its start.
    """
    check_keys(step, {"host", "on", "up"})
    host = stage.lab.topology.host(step["host"])
    found = host.interface_on(step["on"])
    _do(stage, host.name, ["ip", "link", "set", found.name, "up" if step["up"] else "down"])
    if not step["up"]:
        return "down"
    for address in found.all_addresses:
        options = ["dev", found.name, *(["nodad"] if address.version == 6 else [])]
        _do(stage, host.name, ["ip", "address", "replace", str(address), *options])
    for route in host.routes:
        for to, via in ((route.to, route.via), (twin_network(route.to), twin_address(route.via))):
            _do(stage, host.name, ["ip", "route", "replace", str(to), "via", str(via)])
    return "up, with its addresses and routes"


def remap(stage: Stage, step: dict[str, Any]) -> str:
    """NAT ``host`` gives every flow a new mapping, to UDP ``ports`` (as "30000-30999").

    Its address goes and returns: that is what makes the kernel forget the old mappings.
    """
    check_keys(step, {"host", "ports"})
    host = stage.lab.topology.host(step["host"])
    nat = host.masquerade
    if nat is None:
        raise LabError(f"{host.name} is no NAT")
    interface = next(i for i in host.interfaces if i.name == nat.interface)
    _do(stage, host.name, ["nft", network.masquerade_rules(nat.interface, step["ports"])])
    address = stage.addresses.get((host.name, interface.link), interface.addresses[0])
    _change_address(stage, host.name, interface.name, address, address)
    return f"new mappings, to ports {step['ports']}"

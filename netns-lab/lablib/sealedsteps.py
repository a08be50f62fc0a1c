"""Steps about sealed ports: their keys, the clock, what captures can show, packets of strangers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lablib import forgeports, whole
from lablib.errors import LabError
from lablib.gateway import Oegw
from lablib.lab import Lab, published_records
from lablib.publishing import serve
from lablib.records import of_ports
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import wait_until

OFFLOADS = ("tx", "tso", "gso", "gro")


def plain_frames(stage: Stage, step: dict[str, Any]) -> str:
    """The interfaces of ``hosts`` send each packet as it will be on a wire.

    Else a host leaves checksums and segments to the card, which here is a cable to the next host,
    and a capture shows neither.  ``sg-a:oegw0`` is one device of a host.
    """
    check_keys(step, {"hosts"})
    lab, count = stage.lab, 0
    for place in step["hosts"]:
        name, _, device = place.partition(":")
        linked = [one.name for one in lab.topology.host(name).interfaces if one.link]
        for interface in [device] if device else linked:
            # A tunnel's device has no checksums to leave to anybody.
            changed = [each for each in OFFLOADS if not device or each in ("gso", "gro")]
            words = [word for each in changed for word in (each, "off")]
            result = lab.run.call(name, ["ethtool", "-K", interface, *words])
            if result.returncode:
                raise LabError(f"ethtool: {result.stderr.strip()}")
            count += 1
    return f"{count} interfaces"


def set_clock(stage: Stage, step: dict[str, Any]) -> str:
    """The clocks of all gateways jump ``days`` forward, beyond what they jumped before.

    The scenario must have ``clock = true``: so they start with one that can be set.
    """
    check_keys(step, {"days"})
    lab = stage.lab
    lab.set_clock(lab.clock_days + step["days"])
    return f"{lab.clock_days} days ahead"


def new_port_key(stage: Stage, step: dict[str, Any]) -> str:
    """The operator of ``gateway`` changes its port key, and publishes the new one in its place.

    The key before is kept, and stands in ``old_keys``.  The gateway takes up the new one when it
    is started again.
    """
    check_keys(step, {"gateway"})
    lab, name = stage.lab, step["gateway"]
    path, oegw = lab.port_keys[name], Oegw(lab.run)
    gone = port_records(oegw, lab, name)
    oegw.finish(oegw.begin_port_keygen(path, roll=True))
    fresh = [record for record in port_records(oegw, lab, name) if record not in gone]
    serve(lab, [record for record in lab.records if record not in gone] + fresh, False)
    configuration = lab.gateways[name].configuration
    line, text = f'private_key = "{path}"\n', configuration.read_text()
    if line not in text or "old_keys" in text:
        raise LabError(f"{configuration}: [sst] has not just {line.strip()}")
    whole.put(configuration, text.replace(line, f'{line}old_keys = ["{path}.old"]\n'))
    return f"{len(fresh)} records in place of {len(gone)}"


def port_records(oegw: Oegw, lab: Lab, gateway: str) -> list[str]:
    """The records of a gateway's port key for its clients, as its operator publishes them."""
    entries = [entry for entry in lab.scenario.records if entry.gateway == gateway]
    clients = tuple(client for entry in entries for client in entry.clients)
    made = published_records(oegw, lab, gateway, clients, any(entry.fqdn for entry in entries))
    return [record for record in made if of_ports(record)]


def forge_ports(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` sends bad packets of ``what`` kind (see `forgeports`), ``count`` of each.

    They claim to come from ``source`` and go to ``to``, by way of the MAC address of ``gateway``.
    """
    check_keys(step, {"host", "what", "source", "to", "gateway", "count", "on"})
    lab = stage.lab
    link = step["on"]
    interface = lab.topology.host(step["host"]).interface_on(link)
    mac = next(i.mac for i in lab.topology.host(step["gateway"]).interfaces if i.link == link)
    order = {
        "interface": interface.name, "mac": mac, "what": step["what"],
        "count": step.get("count", 1),
        "source": str(lab.address(step["source"])), "destination": str(lab.address(step["to"])),
    }  # fmt: skip
    command = [sys.executable, "-I", str(Path(forgeports.__file__)), json.dumps(order)]
    result = lab.run.call(step["host"], command)
    if result.returncode:
        raise LabError(f"forging: {result.stderr.strip()[-300:]}")
    return f"{result.stdout.strip()} sent"


def gateway_count(stage: Stage, step: dict[str, Any]) -> str:
    """A counter of ``gateway``, whose name is like ``name``, is at least, at most, or ``count``."""
    from lablib import facts

    check_keys(step, {"gateway", "name", "count", "at_least", "at_most", "within"})
    fact = {key: value for key, value in step.items() if key not in ("do", "within", "text")}
    seen: list[str] = []

    def right() -> bool:
        try:
            seen[:] = [facts.counter(stage.lab, {"kind": "counter", **fact})]
        except Missed as missed:
            seen[:] = [str(missed)]
            return False
        return True

    try:
        wait_until(step["name"], right, step.get("within", 3.0))
    except LabError as error:
        raise Missed(seen[0] if seen else str(error)) from error
    return seen[0]

"""Steps that change what the DNS says while the lab runs: records appear, and are withdrawn."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from string import Template
from typing import Any

from lablib import dns, serials
from lablib.errors import LabError
from lablib.gateway import Oegw
from lablib.lab import Lab, published_records
from lablib.stage import Missed, Stage, check_keys
from lablib.topology import twin_address
from lablib.waiting import patient

RELOAD_SECONDS = 5.0


def serve(lab: Lab, records: list[str], forget: bool) -> None:
    """Write the zones anew and wait until the authoritative server has them.

    With ``forget`` the resolvers lose what they have cached; else they keep it as long as they may.
    """
    server = next((p for p in lab.run.processes if p.name == "nsd"), None)
    if server is None:
        raise LabError("publish, withdraw: the zones of this scenario are not nsd's")
    lab.records, lab.serial = records, lab.serial + 1
    written = lab.write_zones()
    server.send(signal.SIGHUP)
    order = {
        "server": dns.AUTHORITATIVE, "zones": [zone.name for zone in written],
        "serial": lab.serial, "seconds": patient(RELOAD_SECONDS),
    }  # fmt: skip
    command = [sys.executable, str(Path(serials.__file__)), json.dumps(order)]
    result = lab.run.call("dns", command, RELOAD_SECONDS + 5)
    if result.returncode:
        raise LabError(f"nsd did not load the zones {result.stdout.strip()}")
    for name in ("unbound", "unbound-own", "unbound-forwarder") if forget else ():
        configuration = lab.run.directory / f"{name}.conf"
        if configuration.exists():
            command = ["unbound-control", "-c", str(configuration), "flush_zone", "."]
            result = lab.run.call(None, command)
            if result.returncode:
                raise LabError(f"{name}: {result.stdout}{result.stderr}")


def publish(stage: Stage, step: dict[str, Any]) -> str:
    """The DNS gets the records of ``gateway`` for ``clients``, or the ``lines`` that are given.

    ``fqdn``: bound to the gateway's name.  ``types``: of the gateway's records only these.
    In ``lines`` ``$SG_B_KEY`` is the public key of SG-B, and so on.  ``forget``: the resolver's
    cache is emptied.
    """
    check_keys(step, {"gateway", "clients", "fqdn", "types", "lines", "forget"})
    lab = stage.lab
    try:
        text = Template(step.get("lines", "")).substitute(lab.public_keys())
    except (KeyError, ValueError) as error:
        raise LabError(f"publish: placeholder {error}") from error
    added = dns.joined(text)
    if "gateway" in step:
        clients, fqdn = tuple(step.get("clients", ())), bool(step.get("fqdn"))
        made = published_records(Oegw(lab.run), lab, step["gateway"], clients, fqdn)
        added += [r for r in made if dns.type_of(r) in step.get("types", (dns.type_of(r),))]
    fresh = [record for record in added if record not in lab.records]
    if not fresh:
        raise Missed("nothing that is not published already")
    serve(lab, lab.records + fresh, bool(step.get("forget")))
    return f"{len(fresh)} records more"


def withdraw(stage: Stage, step: dict[str, Any]) -> str:
    """The DNS loses what was published at the reverse names of host ``of``, or at ``name``.

    ``type``: only records of that type.  The lab's own records (A, AAAA, PTR) stay.
    """
    check_keys(step, {"of", "name", "type", "forget"})
    lab = stage.lab
    if "of" in step:
        address = lab.topology.host(step["of"]).address
        if address is None:
            raise LabError(f"withdraw: {step['of']} has no address")
        names = {str(a.reverse_pointer) for a in (address, twin_address(address))}
    else:
        names = {step["name"].rstrip(".").lower()}
    kept = [
        record
        for record in lab.records
        if dns.owner(record) not in names
        or dns.type_of(record) != step.get("type", dns.type_of(record))
    ]
    if len(kept) == len(lab.records):
        raise Missed(f"there is no such record at {' or '.join(sorted(names))}")
    gone = len(lab.records) - len(kept)
    serve(lab, kept, bool(step.get("forget")))
    return f"{gone} records less"

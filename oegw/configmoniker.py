"""Reading ``[moniker]``: from a table of a configuration to the daemon's settings.

    [moniker]           port, addresses, socket, private_key, listing, clear, lease, queries, services
    [[moniker.grant]]   user, service, namespace
    [[moniker.rule]]    allow, service, namespace, clients, hosts, encrypted
    [[moniker.host]]    name, addresses, key, namespaces, leases, port
    [moniker.gateway]   address, key, port
    [moniker.firewall]  deny, outside, keep
    [moniker.client]    encrypt
    [[moniker.client.rule]]  as [[moniker.rule]]
    [moniker.export]    zone, listen, multicast, public
    [[moniker.export.peer]]  name, address, key, port
"""

from __future__ import annotations

from pathlib import Path

from oegw.configfile import Section
from oegw.moniker.settings import MonikerSettings


def read_moniker(section: Section, directory: Path, *, present: bool) -> MonikerSettings:
    """The settings of ``[moniker]``; relative paths start at ``directory``."""
    raise NotImplementedError

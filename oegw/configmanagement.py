"""Reading ``[management]``: from where this box is managed.

[management]  addresses
"""

from __future__ import annotations

from oegw.configfile import Section
from oegw.management import ManagementSettings


def read_management(section: Section) -> ManagementSettings:
    """The settings of the table; what is wrong is noted in it."""
    addresses = section.networks("addresses") or ()
    for network in addresses:
        if network.prefixlen == 0:
            section.wrong("addresses", f"{network} is everybody: name who manages this box")
    return ManagementSettings(addresses)

"""Flows that the kernel knows already, and translates otherwise than the tunnel needs it.

A connection is translated by what held for its first packet.  One that began in clear, before there
was a tunnel, may have another source than the tunnel is for, or its own; what enters the tunnel
so is dropped there.  Forgotten, it is translated anew with its next packet.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from policy.flow import IPAddress

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def forget_other_sources(source: IPAddress, destination: IPAddress, outside: IPAddress) -> int:
    """Forget the connections of a pair in which ``source`` is not translated to ``outside``.

    Returns how many.  Raises OSError.  The kernel picks the pair's own out of all (Linux 5.8); of
    IPv6 it picks what does not match (Linux 6.18 still), so there all are looked at here.
    """
    family = _FAMILIES[source.version]
    first, second = (f"CTA_IP_V{source.version}_{end}" for end in ("SRC", "DST"))
    pair = NFCTAttrTuple(family, saddr=str(source), daddr=str(destination))
    forgotten = 0
    try:
        with NFCTSocket(nfgen_family=family) as conntrack:
            wanted = pair if source.version == 4 else None
            for entry in list(conntrack.dump(tuple_orig=wanted)):
                original = entry.get_attr("CTA_TUPLE_ORIG")
                there = original.get_attr("CTA_TUPLE_IP")
                ends = ip_address(there.get_attr(first)), ip_address(there.get_attr(second))
                back = entry.get_attr("CTA_TUPLE_REPLY").get_attr("CTA_TUPLE_IP")
                if ends != (source, destination) or ip_address(back.get_attr(second)) == outside:
                    continue
                try:
                    conntrack.entry("del", tuple_orig=NFCTAttrTuple.from_netlink(family, original))
                except NetlinkError:
                    continue  # it ended by itself meanwhile
                forgotten += 1
    except NetlinkError as error:
        raise OSError(error.code, f"conntrack: {error}") from None
    return forgotten

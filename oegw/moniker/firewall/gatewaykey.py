"""The public key of the gateway in front, from the DNS: asked anew for each connection."""

from __future__ import annotations

from oegw.moniker.interface import IPAddress
from oegw.moniker.names import MonikerError

# Our choice.
DNS_SECONDS = 5.0


async def key_from_dns(address: IPAddress) -> bytes | None:
    """The X25519 public key at the reverse name of ``address``; None if there is none to use."""
    # What knows the DNS takes a while to import, and most configurations have the key.
    from oegw.moniker.library.hostkey import HostKeys

    try:
        return await HostKeys().look_up(str(address), address, DNS_SECONDS)
    except (MonikerError, OSError):
        return None

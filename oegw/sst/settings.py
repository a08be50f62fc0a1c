"""The settings of port encryption: the table ``[sst]``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

IPAddress = IPv4Address | IPv6Address

DEFAULT_KEY = Path("/etc/oegw/sst.pem")  # where `oegw sst keygen` puts one


class Ipv4Signal(Enum):
    """How an IPv4 packet says that its ports are encrypted."""

    FLAG = "flag"  # the reserved bit of the flags (draft section 3 A)
    DSCP = "dscp"  # as in IPv6, for paths that clear the bit; both sides must agree


class LanFlag(Enum):
    """What becomes of a flag on a packet from inside, which can't be ours."""

    CLEAR = "clear"  # the flag is cleared, the packet goes on
    DROP = "drop"
    REQUEST = "request"  # cleared, and taken for a request


class Strangers(Enum):
    """What becomes of a flagged packet from a peer without a key."""

    DROP = "drop"
    PASS = "pass"  # noqa: S105  (goes on as it is, flag and all)


class Fragments(Enum):
    """What becomes of IPv4 packets that are, or must become, fragments: they lose the flag."""

    STRENGTH = "strength"  # clear where port encryption is opportunistic, dropped where required
    DROP = "drop"
    CLEAR = "clear"
    TRY = "try"  # sealed and flagged all the same, for paths without a stateful Linux router


class Request(Enum):
    """How a sender may ask for port encryption."""

    SOCKET = "socket"  # the socket option that `oegw sst enable` brings
    DSCP = "dscp"  # hosts inside, by a code point


class Epochs(Enum):
    """How often static keys change by themselves."""

    DAILY = "daily"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class SstSettings:
    """``enabled``: None means: if a key is given, or a rule says ``sst``.
    ``private_key``: the file of our X25519 key; without one there is only what IKE agrees on.
    ``old_keys``: keys that we published until lately; what is sealed with them is still opened.
    ``dscp``: code point that flags (1 to 63); ``restored_dscp`` takes its place; ``request_dscp``
    asks.
    ``algorithms``: those that we accept and publish, by name, the preferred one first.
    ``flows``: the most that the fast path holds, in each direction, for each family.
    ``flow_lifespan``: seconds until the fast path forgets a flow; the next packet brings it back.
    ``hold_packets`` and ``patience`` (seconds): what may wait for a key or a probe, and how long.
    ``probe_interval``: seconds between two probes of a path in use.
    ``forwarder``: address and port on which DNS is forwarded, and keys by name are seen.
    ``mark_mask``: neighbouring bits of packet and connection mark; ``queue``: the first of two.
    """

    enabled: bool | None = None
    private_key: Path | None = None
    old_keys: tuple[Path, ...] = ()
    algorithms: tuple[str, ...] = ("aes128", "aes256")
    epochs: Epochs = Epochs.DAILY
    ipv4_signal: Ipv4Signal = Ipv4Signal.FLAG
    dscp: int = 3
    restored_dscp: int = 0
    request_dscp: int = 7
    requests: tuple[Request, ...] = (Request.SOCKET, Request.DSCP)
    lan_flag: LanFlag = LanFlag.CLEAR
    strangers: Strangers = Strangers.DROP
    fragments: Fragments = Fragments.STRENGTH
    flows: int = 65536
    flow_lifespan: float = 600.0
    hold_packets: int = 256
    patience: float = 3.0
    probe_interval: float = 60.0
    forwarder: tuple[IPAddress, int] | None = None
    mark_mask: int = 0x3F000000
    queue: int = 4510

"""The settings of a gateway, as one tree of frozen values.

`oegw.config.load` makes it from a file; each room receives only its own
branch.  Defaults stand here and nowhere else; `oegw/docs/configuration.md`
says what each key is for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dnsrecords.budget import PER_SECOND
from ike.events import Encapsulation, Identity
from oegw.assurance import UnsignedDelegation
from oegw.audit import AuditSettings
from oegw.decision import DecisionPoint
from oegw.gateways import MultihomingSettings
from oegw.ledger import Lifespans
from oegw.management import ManagementSettings
from oegw.moniker.settings import MonikerSettings
from oegw.nat import NatRule
from oegw.peer import ConfiguredPeer
from oegw.socks5.settings import SocksSettings
from oegw.sst.settings import SstSettings
from policy.flow import IPAddress, IPNetwork
from policy.rule import Category, OnFailure, Rule, Sst, SstStrength

DEFAULT_CONFIG = Path("/etc/oegw/oegw.toml")

AT_START_ONLY = (
    *("gateway", "interfaces", "dns", "ike", "datapath", "intercept", "lifespans", "multihoming"),
    *("nat", "sst"),
)
"""The tables that take effect at a restart."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Who this gateway is.

    ``addresses``: outer addresses, at most one per family; empty means that
    the daemon finds them out.  ``identity``: a domain name, or None for the
    address in use.  ``fqdn``: the name to use where the address has no KEY
    record.  The private key is known by its path only.  ``state``: the file of
    what must survive a crash.  ``watch``: seconds between two looks at the
    files that the rules name; 0 for none.  ``user``: whom the processes without
    rights become; None: ``oegw`` if there is this user, else who starts them.
    """

    addresses: tuple[IPAddress, ...] = ()
    identity: Identity | None = None
    private_key: Path = Path("/etc/oegw/gateway.pem")
    control_socket: Path = Path("/run/oegw/control.sock")
    trace: Path | None = None
    state: Path = Path("/var/lib/oegw/state.db")
    fqdn: str | None = None
    watch: float = 0.0
    user: str | None = None

    @property
    def guard(self) -> Path:
        """What is loaded at the next boot, before the network: beside ``state``."""
        return self.state.with_name("guard.nft")


@dataclass(frozen=True, slots=True)
class InterfacesSettings:
    """``outside``: interfaces towards the Internet; empty means those with a default route."""

    outside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """``resolvers``: empty means those of /etc/resolv.conf.  ``timeout``: seconds for each try.

    ``local_reverse``: private ranges whose reverse zones these resolvers serve.  ``check_own``:
    look at our own records before we begin, and before we accept.  ``trusted``: those
    of the resolvers that validate, on a path that is safe; ones on loopback addresses are anyway.
    ``records``: the kinds that name a gateway.  ``questions_per_second``: in all.
    """

    resolvers: tuple[IPAddress, ...] = ()
    timeout: float = 1.0
    tries: int = 3
    local_reverse: tuple[IPNetwork, ...] = ()
    check_own: bool = True
    trusted: tuple[IPAddress, ...] = ()
    unsigned_delegation: UnsignedDelegation = UnsignedDelegation.ANY
    records: tuple[str, ...] = ("txt",)
    questions_per_second: int = PER_SECOND


@dataclass(frozen=True, slots=True)
class IkeSettings:
    """The keying protocol; ``ike.configuration.Configuration`` explains the numbers."""

    profiles: tuple[str, ...] = ("modern", "draft")
    channel_lifetime: int = 28800
    tunnel_lifetime: int = 3600
    retransmit_first: float = 0.5
    retransmit_tries: int = 5
    half_open_limit: int = 1000
    half_open_per_source: int = 8
    channel_proposals: tuple[str, ...] = ()
    tunnel_proposals: tuple[str, ...] = ()
    pfs: str = "required"
    channel_bytes: int | None = None
    tunnel_bytes: int | None = None
    keepalive_interval: float = 20.0
    dpd_interval: float = 10.0
    dpd_tries: int = 5


@dataclass(frozen=True, slots=True)
class DatapathSettings:
    """ESP.  ``datapath`` is ``"auto"``, ``"kernel"`` or ``"userspace"``; ``replay_window`` is in
    packets; ``interface_id`` marks what is ours in the kernel's IPsec.  The last three are about
    ours in user space: see ``UserspaceSettings``."""

    datapath: str = "auto"
    encapsulation: Encapsulation = Encapsulation.AUTO
    tunnel_interface: str = "oegw0"
    replay_window: int = 1024
    interface_id: int = 4500
    core: str = "auto"
    offloads: bool = True
    workers: int = 0


@dataclass(frozen=True, slots=True)
class InterceptOptions:
    """Trapping and holding packets.  ``hold`` is ``"first"`` or ``"first+last"``.
    ``encrypted_mark``: on sockets that must be encrypted."""

    mark_mask: int = 0x30000
    assurance_mask: int = 0xC0000
    encrypted_mark: int = 0x400000
    queue: int = 4500
    hold: str = "first+last"
    hold_packets: int = 1024
    hold_bytes: int = 4 * 1024 * 1024
    setups_per_source: int = 32
    setups: int = 1000
    setups_per_second: int = 250


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """What `oegw dns-records --update` and `oegw rollover` put into the DNS, and how.

    ``clients``: hosts whose delegation to this gateway is published.  ``server``: who takes the
    updates; None means the one that each zone's SOA names.  ``ttl`` in seconds.  ``ipseckey``:
    records of RFC 4025, too.
    """

    clients: tuple[IPAddress, ...] = ()
    precedence: int = 10
    ttl: int = 3600
    server: IPAddress | None = None
    tsig_key: Path | None = None
    ipseckey: bool = False


def default_rule(
    category: Category = Category.OPPORTUNISTIC,
    on_failure: OnFailure = OnFailure.CLEAR,
    origin: str = "the default",
) -> Rule:
    """The rule for what no other rule matches."""
    return Rule("default", category, on_failure=on_failure, origin=origin)


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it.  ``rules`` are the user's, without built-ins; ``peers`` go by rule name; ``files``
    are those that the rules name, and what may be added beside the main file; ``texts``: what was
    read, the main file first."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    interfaces: InterfacesSettings = field(default_factory=InterfacesSettings)
    dns: DnsSettings = field(default_factory=DnsSettings)
    ike: IkeSettings = field(default_factory=IkeSettings)
    datapath: DatapathSettings = field(default_factory=DatapathSettings)
    intercept: InterceptOptions = field(default_factory=InterceptOptions)
    lifespans: Lifespans = field(default_factory=Lifespans)
    publish: PublishSettings = field(default_factory=PublishSettings)
    multihoming: MultihomingSettings = field(default_factory=MultihomingSettings)
    decision_points: tuple[DecisionPoint, ...] = ()
    rules: tuple[Rule, ...] = ()
    default: Rule = field(default_factory=default_rule)
    peers: dict[str, ConfiguredPeer] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    nat: tuple[NatRule, ...] = ()
    sst: SstSettings = field(default_factory=SstSettings)
    moniker: MonikerSettings = field(default_factory=MonikerSettings)
    socks: SocksSettings = field(default_factory=SocksSettings)
    management: ManagementSettings = field(default_factory=ManagementSettings)
    texts: tuple[tuple[Path, str], ...] = field(default=(), repr=False, compare=False)
    audit: AuditSettings = field(default_factory=AuditSettings)

    @property
    def encrypts_ports(self) -> bool:
        """Whether port encryption runs."""
        if self.sst.enabled is not None:
            return self.sst.enabled
        rules = (*self.rules, self.default)
        return self.sst.private_key is not None or any(rule.sst is not Sst.OFF for rule in rules)

    @property
    def seals_or_drops(self) -> Rule | None:
        """A rule whose traffic would leave as it is if port encryption did not run (SST-29).

        Of traffic that needs a tunnel as well, the interception drops what has none.
        """
        for rule in (*self.rules, self.default):
            if rule.sst is Sst.ONLY and rule.sst_strength is SstStrength.REQUIRED:
                return rule
        return None

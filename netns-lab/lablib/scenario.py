"""A scenario: a folder with gateway configurations, zone additions, steps and facts."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lablib.cells import Plan, plan
from lablib.errors import LabError
from lablib.moniker import FOLDER

HOME = Path(__file__).resolve().parent.parent
SCENARIOS = HOME / "scenarios"
VARIANTS = HOME / "variants"
EXPECTATION = "expect.toml"
DATAPATHS = ("auto", "kernel", "userspace")
CORES = ("compiled", "python")
KNOWN = {
    *("summary", "family", "bits", "capture", "resolver", "forwarder"),
    *("records", "step", "fact", "ladder", "variant", "crowd", "late"),
    *("ttl", "negative", "matrix", "alone", "only_datapath", "dynamic", "dnssec", "relay"),
    *("port_keys", "clock", "resolvers", "users", "secrets", "services", "question_keys"),
}

# Steps that bring, or may bring, thousands of packets within a moment.
MUCH = {"cross", "download", "iperf", "matrix", "run", "start", "start-transfer", "stream"}


@dataclass(frozen=True, slots=True)
class Records:
    """For whom a gateway's records are published.

    Of gateways, those with the lower ``precedence`` are tried first.  With ``fqdn`` the records are
    not bound to the gateway's address but to its name: KEY there, and delegations to it.
    ``omit``: the types of records that are left out ("KEY", "TXT").  With ``keyless`` the
    delegations have no key.  ``spare_keys``: how many further keys are published in the same way.
    """

    gateway: str
    clients: tuple[str, ...]
    fqdn: bool = False
    precedence: int = 10
    omit: tuple[str, ...] = ()
    keyless: bool = False
    spare_keys: int = 0
    ipseckey: bool = False  # IPSECKEY records beside the others
    names: tuple[str, ...] = ()  # at which the port key is, and not at reverse names
    only_ports: bool = False  # nothing but the records of the key for port encryption
    types: tuple[str, ...] = ()  # only records of these types; empty: of all


@dataclass(frozen=True, slots=True)
class Userspace:
    """What ``lab run`` was told of the datapath in user space; else as the gateways have it."""

    core: str = ""
    offloads: bool = True
    workers: int = 0

    def __str__(self) -> str:
        """How output and tables name it; empty if nothing was told."""
        words = [f"core {self.core}"] if self.core else []
        words += [] if self.offloads else ["no offloads"]
        words += [f"workers {self.workers}"] if self.workers else []
        return ", ".join(words)

    def keys(self) -> dict[str, str]:
        """For ``[datapath]``, as TOML has them."""
        result = {"core": f'"{self.core}"'} if self.core else {}
        result |= {} if self.offloads else {"offloads": "false"}
        return result | ({"workers": str(self.workers)} if self.workers else {})

    def options(self) -> list[str]:
        """For a command line of ``lab run``."""
        words = ["--core", self.core] if self.core else []
        words += [] if self.offloads else ["--no-offloads"]
        return words + (["--workers", str(self.workers)] if self.workers else [])


UNCHANGED = Userspace()


@dataclass(frozen=True, slots=True)
class Scenario:
    """``expect.toml``, parsed.  Gateways are the hosts that have a configuration in the folder."""

    name: str
    directory: Path
    summary: str
    family: int  # 4 or 6: which addresses host names stand for
    bits: int  # of the gateways' RSA keys
    links: tuple[str, ...]  # to capture on
    resolver: str  # host with a caching resolver of its own; empty: none
    forwarder: str  # router that forwards the questions of the hosts behind it; empty: none
    ladder: str  # "", "plain" or "opportunistic": drawn at the end
    gateways: tuple[str, ...]
    records: tuple[Records, ...]
    additions: str
    dynamic: bool = False  # whether the zones take updates
    dnssec: dict[str, str] | None = None  # states of hosts' zones; None: without
    relay: dict[str, str] = field(default_factory=dict)  # ``before`` whom it stands, its ``mode``
    variant: str = ""  # of the topology; empty: the draft's
    crowd: dict[str, int] = field(default_factory=dict)  # hosts with many more addresses
    late: tuple[str, ...] = ()  # gateways that a step starts, and not the lab
    ttl: int = 60  # seconds that a record may be kept
    negative: int = 30  # seconds that "no such record" may be kept: the SOA minimum
    has_long: bool = False  # whether there is a longer form of it
    matrix: Plan | None = None  # of policies
    only_datapath: str = ""  # what it shows is true of this datapath alone; its README says why
    resolvers: dict[str, str] = field(default_factory=dict)  # that hosts ask, beside the above
    port_keys: tuple[str, ...] = ()  # gateways that have a key for port encryption
    clock: bool = False  # whether the gateways' clocks can be set
    monikers: tuple[str, ...] = ()  # hosts with a daemon of their own for services by name
    services: bool = False  # hosts have /run/oegw to themselves, for services by name
    question_keys: tuple[str, ...] = ()  # hosts whose key for questions is in the DNS
    users: tuple[str, ...] = ()  # that all hosts have beside the machine's
    secrets: tuple[str, ...] = ()  # files with a key for TSIG, of this name
    alone: bool = False  # it measures so finely that no other lab may run beside it
    steps: tuple[dict[str, Any], ...] = field(default=())
    facts: tuple[dict[str, Any], ...] = field(default=())
    datapaths: Mapping[str, str] = field(
        default_factory=dict
    )  # by gateway; else the gateway's own choice
    userspace: Userspace = UNCHANGED  # of all gateways

    def datapath_of(self, gateway: str) -> dict[str, str]:
        """What its configuration has to say of the datapath, as TOML has it."""
        chosen = self.datapaths.get(gateway)
        return ({"datapath": f'"{chosen}"'} if chosen else {}) | self.userspace.keys()

    @property
    def seconds(self) -> float:
        """What its steps say that they take at least; how long it runs is more."""
        return sum(float(step.get("seconds", 0)) for step in self.steps)

    @property
    def moves_much(self) -> bool:
        """Whether captures need room for bursts."""
        return any(step["do"] in MUCH for step in self.steps)

    def precedence(self, gateway: str) -> list[str]:
        """The option of ``oegw dns-records`` for the precedence of a gateway's records."""
        entries = [entry for entry in self.records if entry.gateway == gateway]
        return ["--precedence", str(entries[0].precedence)] if entries else []


def fits(scenario: Scenario, text: str) -> bool:
    """Whether what the scenario shows can be expected with these datapaths (of ``--datapath``)."""
    chosen = {word.rpartition("=")[2] for word in text.split(",") if word}
    return not scenario.only_datapath or chosen <= {scenario.only_datapath}


def with_datapaths(scenario: Scenario, text: str) -> Scenario:
    """The scenario with a datapath for all gateways (``kernel``) or some (``sg-a=kernel,...``).

    Raises LabError for a gateway or a datapath that there is not.
    """
    chosen: dict[str, str] = {}
    for word in text.split(","):
        gateway, named, datapath = word.rpartition("=")
        if datapath not in DATAPATHS:
            raise LabError(f"--datapath: {datapath!r} is none of {', '.join(DATAPATHS)}")
        if named and gateway not in scenario.gateways:
            raise LabError(f"--datapath: {scenario.name} has no gateway {gateway!r}")
        chosen |= dict.fromkeys([gateway] if named else scenario.gateways, datapath)
    return replace(scenario, datapaths=chosen)


def names() -> list[str]:
    return sorted(path.parent.name for path in SCENARIOS.glob(f"*/{EXPECTATION}"))


def _entry(table: dict[str, Any], long: bool) -> dict[str, Any]:
    """A step, a fact or all of a file without its ``long``, whose keys hold in the longer form."""
    rest = {key: value for key, value in table.items() if key != "long"}
    return rest | table.get("long", {}) if long else rest


def load(name: str, long: bool = False) -> Scenario:
    """Raises LabError if there is no such scenario or its file can't be understood."""
    directory = SCENARIOS / name
    path = directory / EXPECTATION
    try:
        with path.open("rb") as stream:
            table = tomllib.load(stream)
    except FileNotFoundError:
        raise LabError(f"no scenario {name!r}; there are {', '.join(names())}") from None
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{path}: {error}") from error
    has_long = "long" in table or any(
        "long" in entry for key in ("step", "fact") for entry in table.get(key, ())
    )
    table = _entry(table, long)
    unknown = set(table) - KNOWN
    if unknown:
        raise LabError(f"{path}: unknown keys {', '.join(sorted(unknown))}")
    additions = directory / "additions.zone"
    return Scenario(
        name=name,
        directory=directory,
        summary=table["summary"],
        family=table.get("family", 4),
        bits=table.get("bits", 2048),
        links=tuple(table.get("capture", ("as1", "west", "east", "as3"))),
        resolver=table.get("resolver", ""),
        forwarder=table.get("forwarder", ""),
        ladder=table.get("ladder", ""),
        gateways=tuple(sorted(p.stem for p in directory.glob("*.toml") if p.name != EXPECTATION)),
        records=tuple(
            Records(
                entry["gateway"],
                tuple(entry["clients"]),
                entry.get("fqdn", False),
                entry.get("precedence", 10),
                tuple(entry.get("omit", ())),
                entry.get("keyless", False),
                entry.get("spare_keys", 0),
                entry.get("ipseckey", False),
                tuple(entry.get("names", ())),
                entry.get("only_ports", False),
                tuple(entry.get("types", ())),
            )
            for entry in table.get("records", ())
        ),
        additions=additions.read_text() if additions.exists() else "",
        dnssec=table["dnssec"].get("hosts", {}) if "dnssec" in table else None,
        relay=table.get("relay", {}),
        dynamic=table.get("dynamic", False),
        variant=table.get("variant", ""),
        crowd=table.get("crowd", {}),
        late=tuple(table.get("late", ())),
        ttl=table.get("ttl", 60),
        negative=table.get("negative", 30),
        has_long=has_long,
        matrix=plan(table["matrix"]) if "matrix" in table else None,
        only_datapath=table.get("only_datapath", ""),
        resolvers=table.get("resolvers", {}),
        port_keys=tuple(table.get("port_keys", ())),
        clock=table.get("clock", False),
        monikers=tuple(sorted(p.stem for p in (directory / FOLDER).glob("*.toml"))),
        services=table.get("services", False),
        question_keys=tuple(table.get("question_keys", ())),
        users=tuple(table.get("users", ())),
        secrets=tuple(table.get("secrets", ())),
        alone=table.get("alone", False),
        steps=tuple(_entry(entry, long) for entry in table.get("step", ())),
        facts=tuple(_entry(entry, long) for entry in table.get("fact", ())),
    )

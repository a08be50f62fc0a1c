"""Who may know whom.  Each rule says why it exists when it is broken.

The rules are functions over parsed sources, and the last tests give each of
them a source that breaks it: a rule that finds nothing must be able to find
something.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("ike", "policy", "dnsrecords", "oegw")

Sources = Mapping[str, ast.Module]  # by path from the root, with slashes


@cache
def shipped() -> Sources:
    """All modules that are installed."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
    }


@cache
def lab() -> Sources:
    files = [*sorted((ROOT / "netns-lab").rglob("*.py")), ROOT / "netns-lab" / "lab"]
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in files
    }


def imports_of(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """Line and full name of what a module imports, wherever in the module it does.

    ``from a import b`` gives ``a.b``, for ``b`` may be a module.
    """
    package = PurePosixPath(path).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = [*package[: len(package) - node.level + 1], *base]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether ``name`` is one of ``modules`` or in one of them."""
    return any(name == module or name.startswith(module + ".") for module in modules)


def top(name: str) -> str:
    return name.partition(".")[0]


def explained(found: list[str], why: str) -> str:
    return "\n".join(["", *found, why])


# ------------------------------------------------------------- rooms and packages

MAY_IMPORT = {
    "policy": ("policy",),
    "dnsrecords": ("dnsrecords", "cryptography", "dns"),
    "ike": ("ike", "cryptography"),
    "oegw": (
        "oegw",
        "ike",
        "policy",
        "dnsrecords",
        "cryptography",
        "pyroute2",
        "netfilterqueue",
        "aiohttp",
        "zeroconf",
        "cffi",
        "prometheus_client",
    ),
}


def strangers(sources: Sources, allowed: tuple[str, ...]) -> list[str]:
    """Imports of neither the standard library nor ``allowed``."""
    return [
        f"{path}:{line} imports {name}"
        for path, tree in sources.items()
        for line, name in imports_of(tree, path)
        if top(name) not in sys.stdlib_module_names and not within(name, allowed)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may_know(room: str) -> None:
    mine = {path: tree for path, tree in shipped().items() if path.startswith(room + "/")}
    found = strangers(mine, MAY_IMPORT[room])
    assert not found, explained(
        found,
        "ike, policy and dnsrecords are libraries that none of the others is needed for; they meet "
        "in oegw, in types of the standard library.  What only tests need (scapy, pytest) is not "
        "installed with the package.",
    )


def test_the_lab_imports_nothing_of_the_gateway() -> None:
    found = strangers(lab(), ("lablib",))
    assert not found, explained(
        found,
        "The lab judges the installed oegw from outside.  If it shared code with it, both could be "
        "wrong in the same way; and it runs with Python alone.",
    )


# ----------------------------------------------------------------------- sans IO

IO = (
    "asyncio", "concurrent", "ctypes", "fcntl", "multiprocessing", "os", "random", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "subprocess",
    "tempfile", "threading", "time", "datetime", "cffi", "pyroute2", "netfilterqueue", "logging",
)  # fmt: skip

CORES = (
    "policy/*.py",
    "ike/*.py",
    "ike/v1/*.py",
    "dnsrecords/*.py",
    "oegw/gateway.py",
    "oegw/initiator.py",
    "oegw/responder.py",
    "oegw/tunnels.py",
    "oegw/ledger.py",
    "oegw/ageing.py",
    "oegw/recovery.py",
    "oegw/setups.py",
    "oegw/connection.py",
    "oegw/connections.py",
    "oegw/peer.py",
    "oegw/selfknowledge.py",
    "oegw/ahead.py",
    "oegw/refusals.py",
    "oegw/latekeys.py",
    "oegw/portencryption.py",
    "oegw/shields.py",
    "oegw/assurance.py",
    "oegw/decided.py",
    "oegw/decision.py",
    "oegw/decisions.py",
    "oegw/hold.py",
    "oegw/nat.py",
    "oegw/intercept/translation.py",
    "oegw/gateways.py",
    "oegw/multihoming.py",
    "oegw/memory.py",
    "oegw/shelf.py",
    "oegw/lasting.py",
    "oegw/resume.py",
    "oegw/commands.py",
    "oegw/events.py",
    "oegw/trace.py",
    "oegw/packet/*.py",
    "oegw/bpf/*.py",
    "oegw/sst/*.py",
    "oegw/sst/plane/*.py",
    "oegw/moniker/*.py",
    "oegw/socks5/*.py",
    "oegw/socks5/client/asking.py",
    "oegw/socks5/client/dialogue.py",
    "oegw/socks5/client/errors.py",
    "oegw/socks5/client/proxy.py",
    "oegw/moniker/library/cache.py",
    "oegw/moniker/library/errors.py",
    "oegw/moniker/library/finding.py",
    "oegw/moniker/library/kept.py",
    "oegw/moniker/library/ports.py",
    "oegw/moniker/library/question.py",
    "oegw/moniker/daemon/limits.py",
    "oegw/moniker/firewall/attached.py",
    "oegw/moniker/firewall/book.py",
    "oegw/moniker/firewall/channel.py",
    "oegw/moniker/firewall/handshake.py",
    "oegw/moniker/firewall/interface.py",
    "oegw/moniker/firewall/messages.py",
    "oegw/moniker/firewall/ruleset.py",
    "oegw/moniker/discovery/naming.py",
    "oegw/moniker/discovery/zone.py",
    "oegw/datapath/interface.py",
    "oegw/datapath/userspace/core/virtio.py",
    "oegw/datapath/userspace/core/flows.py",
    "oegw/datapath/userspace/core/cutting.py",
    "oegw/datapath/userspace/core/joining.py",
    "oegw/datapath/userspace/deadlines.py",
    "oegw/datapath/userspace/esp.py",
    "oegw/datapath/userspace/record.py",
    "oegw/datapath/userspace/replay.py",
    "oegw/datapath/userspace/sad.py",
    "oegw/datapath/userspace/selectors.py",
    "oegw/datapath/userspace/transform.py",
    "oegw/datapath/userspace/engine.py",
    "oegw/datapath/userspace/inbound.py",
    "oegw/datapath/userspace/outbound.py",
    "oegw/datapath/userspace/installed.py",
    "oegw/datapath/userspace/channel.py",
    "oegw/datapath/xfrm/layout.py",
    "oegw/datapath/xfrm/state.py",
    "oegw/datapath/xfrm/policy.py",
    "oegw/datapath/xfrm/reports.py",
    "oegw/datapath/xfrm/plan.py",
)
SHELLS = (  # in a room of cores
    "oegw/bpf/classic.py",
    "oegw/bpf/kernel.py",
    "dnsrecords/resolver.py",
    "dnsrecords/exchange.py",
    "dnsrecords/updater.py",
    "oegw/sst/__init__.py",  # exports the socket option, for applications
    "oegw/sst/forwarder.py",
    "oegw/sst/keys.py",
    "oegw/sst/relay.py",
    "oegw/sst/sender.py",
    "oegw/sst/service.py",
    "oegw/sst/plane/flows.py",
    "oegw/sst/plane/kernel.py",
    "oegw/sst/plane/netlink.py",
    "oegw/sst/plane/queues.py",
    "oegw/moniker/__init__.py",  # exports the library, for applications
    "oegw/moniker/aio.py",  # the same for asyncio
    "oegw/socks5/__init__.py",  # exports the client, for applications
    "oegw/socks5/interface.py",  # names the type of a socket
)

ARITHMETIC = ("oegw/datapath/userspace/core/summing.py",)  # ctypes for a function of numbers


def is_core(path: str) -> bool:
    folder = PurePosixPath(path).parent
    return path not in SHELLS and any(
        fnmatch.fnmatch(path, core) and folder == PurePosixPath(core).parent for core in CORES
    )


def file_of(name: str, sources: Sources) -> str | None:
    """The file of the module that ``name``, or its parent, is."""
    for module in (name, name.rpartition(".")[0]):
        base = module.replace(".", "/")
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if base and path in sources:
                return path
    return None


def reaches_io(path: str, sources: Sources) -> str | None:
    """How a module gets at IO, itself or by what it imports; None if it does not."""
    chains = {path: path}
    todo = [path]
    while todo:
        current = todo.pop()
        for line, name in imports_of(sources[current], current):
            if top(name) in IO and not (top(name) == "ctypes" and current in ARITHMETIC):
                return f"{chains[current]} imports {top(name)} in line {line}"
            other = file_of(name, sources)
            if other is not None and other not in chains:
                chains[other] = f"{chains[current]} -> {other}"
                todo.append(other)
    return None


def test_the_cores_have_no_clock_no_dice_and_no_sockets() -> None:
    cores = [path for path in shipped() if is_core(path)]
    found = [chain for path in cores if (chain := reaches_io(path, shipped())) is not None]
    assert not found, explained(
        found,
        "Cores are told the time and given their randomness, and their shells do the IO.  So a "
        "test of twenty minutes takes no time, and the same input gives the same output.",
    )


def test_every_core_is_there() -> None:
    missing = [core for core in CORES if not any(fnmatch.fnmatch(p, core) for p in shipped())]
    assert not missing, explained(missing, "A core that was renamed would not be checked any more.")


# ----------------------------------------------------------- one place for a thing

ONLY = [
    (
        ("tomllib",),
        ("oegw/config.py",),
        "One module reads the configuration; the others are given their settings.",
    ),
    (
        ("cryptography.hazmat.primitives.asymmetric.dh",),
        ("ike/groups.py",),
        "cryptography announces the end of finite-field Diffie-Hellman.  When it goes, one module "
        "has to change.",
    ),
    (
        ("cryptography.hazmat.primitives.asymmetric.padding",),
        ("ike/signer.py",),
        "What signs and verifies stands in one place, where it can be checked that the key is "
        "never used for anything else.",
    ),
    (
        ("dns",),
        (
            "dnsrecords/resolver.py",
            "dnsrecords/exchange.py",
            "dnsrecords/response.py",
            "dnsrecords/updater.py",
            "dnsrecords/dnssd.py",
        ),
        "dnspython is for messages on their way; records are read by our own parsers.",
    ),
    (
        ("argparse",),
        (
            *("oegw/cli.py", "oegw/arguments.py", "oegw/monikerarguments.py"),
            *("oegw/socksarguments.py", "oegw/applyarguments.py", "oegw/firstarguments.py"),
            "oegw/doctorarguments.py", "oegw/seeingarguments.py", "oegw/docsarguments.py",
        ),
        "There is one command line.",
    ),
    (
        ("netfilterqueue",),
        ("oegw/intercept/nfqueue.py",),
        "One module knows the packet queue's library.",
    ),
    (
        ("cffi",),
        ("oegw/datapath/userspace/core/compiled.py",),
        "One module runs the compiled core; without it the gateway does without cffi.",
    ),
    (
        ("prometheus_client",),
        ("oegw/metrics/collector.py",),
        "It is optional: whoever does without metrics does without it.",
    ),
    (
        ("zeroconf",),
        ("oegw/moniker/discovery/multicast.py",),
        "It is optional: whoever does without mDNS does without it.",
    ),
]  # fmt: skip


def outside_of(sources: Sources, modules: tuple[str, ...], places: tuple[str, ...]) -> list[str]:
    return [
        f"{path}:{line} imports {name}"
        for path, tree in sources.items()
        for line, name in imports_of(tree, path)
        if within(name, modules) and path not in places
    ]


@pytest.mark.parametrize(("modules", "places", "why"), ONLY, ids=[each[0][0] for each in ONLY])
def test_some_things_are_known_in_one_place(
    modules: tuple[str, ...], places: tuple[str, ...], why: str
) -> None:
    found = outside_of(shipped(), modules, places)
    assert not found, explained(found, why)


FORBIDDEN = [
    (
        "oegw/packet/",
        ("oegw.gateway", "oegw.daemon", "oegw.datapath", "oegw.intercept", "ike", "dnsrecords"),
        "Headers are headers, whoever reads them.",
    ),
    (
        "oegw/datapath/",
        ("oegw.gateway", "oegw.connection", "oegw.peer", "oegw.daemon", "ike", "dnsrecords"),
        "A datapath carries what it is told to; who agreed on it, and how, is not its business.",
    ),
    (
        "oegw/intercept/",
        ("oegw.gateway", "oegw.connection", "oegw.peer", "oegw.daemon", "ike", "dnsrecords"),
        "Interception executes verdicts; it has no part in making them.",
    ),
    (
        "oegw/moniker/",
        (
            "oegw.gateway",
            "oegw.connection",
            "oegw.connections",
            "oegw.peer",
            "oegw.ledger",
            "oegw.daemon",
            "oegw.console",
            "oegw.datapath",
            "ike",
        ),
        "Services by name are of use on any host, without a gateway; beside one they are a process "
        "of their own, and their firewall and the gateway's policy do not decide for each other.",
    ),
    *(
        (
            f"oegw/{part}.py",
            (
                "oegw.daemon",
                "oegw.console",
                "oegw.control",
                "oegw.cli",
                "oegw.config",
                "dnsrecords.resolver",
            ),
            "The coordinator is told what happens; it does not know by whom.",
        )
        for part in ("gateway", "initiator", "responder", "tunnels", "ageing", "recovery", "ledger")
    ),
]


def forbidden(sources: Sources, start: str, modules: tuple[str, ...]) -> list[str]:
    return [
        f"{path}:{line} imports {name}"
        for path, tree in sources.items()
        if path.startswith(start)
        for line, name in imports_of(tree, path)
        if within(name, modules)
    ]


@pytest.mark.parametrize(("start", "modules", "why"), FORBIDDEN, ids=[f[0] for f in FORBIDDEN])
def test_some_do_not_know_each_other(start: str, modules: tuple[str, ...], why: str) -> None:
    found = forbidden(shipped(), start, modules)
    assert not found, explained(found, why)


MONIKER_MAY = (
    "oegw.moniker",
    "oegw.config",  # the policy for applications, where no daemon tells it
    "oegw.daemonlife",
    "oegw.intercept.interface",
    "oegw.intercept.nft",
    "oegw.keyfile",
    "oegw.sst.allowance",
    "oegw.sst.asking.option",
    "oegw.sst.interface",
    "oegw.sst.keys",
    "oegw.sst.statickey",
    "oegw.trace",
    "oegw.unixsocket",
)


def beyond(sources: Sources, start: str, allowed: tuple[str, ...]) -> list[str]:
    """Imports of the gateway's, or of `ike`'s or `policy`'s, that are not among ``allowed``."""
    return [
        f"{path}:{line} imports {name}"
        for path, tree in sources.items()
        if path.startswith(start)
        for line, name in imports_of(tree, path)
        if top(name) in ("oegw", "ike", "policy") and not within(name, allowed)
    ]


SOCKS_MAY = (
    "oegw.control", "oegw.daemonlife", "oegw.powers.dropping", "oegw.powers.systemcalls",
    "oegw.socks5", "oegw.trace", "oegw.unixsocket",
)  # fmt: skip


def test_socks_knows_nothing_of_the_gateway() -> None:
    found = beyond(shipped(), "oegw/socks5/", SOCKS_MAY)
    assert not found, explained(
        found,
        "The SOCKS server is handed a resolver and a dialler; what the gateway demands of a flow, "
        "and where names lead, is theirs to know.  Its client is part of applications.",
    )


def test_moniker_knows_little_of_the_gateway() -> None:
    found = beyond(shipped(), "oegw/moniker/", MONIKER_MAY)
    assert not found, explained(
        found,
        "Moniker's daemon runs on any host and is a process of its own, and its library is part of "
        "applications: neither needs the gateway's core, a datapath or the interception.",
    )


READS_STRANGERS = (
    *("ike.endpoint", "ike.header", "ike.wire", "ike.v1", "dns", "dnsrecords.resolver"),
    *("dnsrecords.exchange", "dnsrecords.response", "dnsrecords.lookup", "aiohttp"),
    *("oegw.daemon", "oegw.gateway", "oegw.console", "oegw.control", "oegw.decisionpoint"),
    *("oegw.packet.flow", "oegw.sst.service", "oegw.sst.sealing", "oegw.sst.forwarder"),
    *("oegw.intercept.queue", "oegw.sst.plane.queues", "oegw.moniker.answering"),
)


def reached(start: str, sources: Sources) -> dict[str, str]:
    """All that a module imports, itself or by others, and by which way."""
    chains = {start: start}
    todo = [start]
    while todo:
        current = todo.pop()
        for _, name in imports_of(sources[current], current):
            chains.setdefault(name, f"{chains[current]} -> {name}")
            other = file_of(name, sources)
            if other is not None and other not in chains:
                chains[other] = f"{chains[current]} -> {other}"
                todo.append(other)
    return chains


def strangers_readers(start: str, sources: Sources) -> list[str]:
    found = reached(start, sources)
    return [way for name, way in found.items() if within(name, READS_STRANGERS)]


def test_the_hands_know_nothing_that_reads_what_strangers_write() -> None:
    found = strangers_readers("oegw/powers/hands.py", shipped())
    assert not found, explained(
        found,
        "The process that may change routes and packet rules passes strangers' octets on.  What "
        "reads them is in the mind, which may do nothing.",
    )


def test_powers_know_of_keying_the_signature_only() -> None:
    sources = {path: tree for path, tree in shipped().items() if path.startswith("oegw/powers/")}
    found = {
        f"{path} imports {name}"
        for path, tree in sources.items()
        for _, name in imports_of(tree, path)
        if top(name) in ("ike", "dnsrecords", "dns")
    }
    assert found == {"oegw/powers/signer.py imports ike.signer.Signer"}


SURROUNDINGS = {("sys", "argv"), ("os", "environ"), ("os", "environb"), ("os", "getenv")}

READS_SURROUNDINGS = {
    "oegw/socks5/relay/carrier.py": "hands its environment on to a process that relays",
    "oegw/socks5/relay/child.py": "a process of its own; carrier.py writes its argv",
    "oegw/cli.py": "the command line",
    "oegw/seeingcommands.py": "the same: NO_COLOR",
    "oegw/docscommand.py": "the same: PAGER",
    "oegw/datapath/userspace/sealing.py": "a process of its own; supervisor.py writes its argv",
    "oegw/datapath/userspace/opening.py": "the same",
    "oegw/datapath/userspace/child.py": "hands its environment on to these processes",
    "oegw/docs/examples/starwars_client.py": "an example: a program of its own",
    "oegw/docs/examples/starwars_server.py": "an example: a program of its own",
    "oegw/monikerprocess.py": "a process of its own; childprocess.py writes its argv",
    "oegw/socksprocess.py": "the same",
    "oegw/powers/signer.py": "a process of its own; hands.py starts it by datapath's child.py",
    "oegw/childprocess.py": "hands its environment on to these processes",
}


def surroundings(path: str, tree: ast.Module) -> list[str]:
    found = [
        f"{path}:{node.lineno} reads {node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in SURROUNDINGS
    ]
    names = {".".join(pair) for pair in SURROUNDINGS}
    return found + [
        f"{path}:{n} imports {name}" for n, name in imports_of(tree, path) if name in names
    ]


def test_argv_and_environment_are_read_by_the_command_line_only() -> None:
    found = [
        line
        for path, tree in shipped().items()
        if path not in READS_SURROUNDINGS
        for line in surroundings(path, tree)
    ]
    assert not found, explained(
        found,
        "What a gateway does depends on its configuration and nothing else.  A variable that is "
        "set in one shell and not in a service's would be a second, hidden one.",
    )


def signings(sources: Sources) -> list[str]:
    """Where a private key is put to use: ``.sign`` with a padding, ``.decrypt`` with one."""
    return [
        f"{path}:{node.lineno} calls {node.func.attr} with {len(node.args)} arguments"
        for path, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("sign", "decrypt")
        and any("PKCS1v15" in ast.dump(arg) or "OAEP" in ast.dump(arg) for arg in node.args)
    ]


def test_the_private_key_signs_in_one_place_and_never_decrypts() -> None:
    found = signings(shipped())
    assert [line.partition(":")[0] for line in found] == ["ike/signer.py"], explained(
        found,
        "A key that is used for two purposes can be turned against itself (CVE-2018-0131: "
        "Bleichenbacher's oracle in IKE).",
    )
    assert "calls sign" in found[0]


# -------------------------------------------------------------------------- names

TOP_LEVEL = {
    "oegw", "ike", "policy", "dnsrecords", "tests", "netns-lab", "pyproject.toml", "README.md",
    "CHANGELOG.md", "LICENSE", ".ci", ".gitignore",
}  # fmt: skip


def unexpected(names: list[str], ignored: list[str]) -> list[str]:
    patterns = [line.strip("/") for line in ignored if line and not line.startswith("#")]
    return sorted(
        name
        for name in names
        if name not in TOP_LEVEL | {".git"}
        and not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    )


def test_the_top_level_is_what_it_is() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    found = unexpected([path.name for path in ROOT.iterdir()], ignored)
    assert not found, explained(
        found,
        "A reader finds a thing where they look first, and the top level is where they look.  "
        "Documentation belongs into oegw/docs, units and packaging into oegw/deploy.",
    )


@pytest.mark.parametrize(
    "room",
    ["policy", "dnsrecords", "ike", "oegw", "oegw/intercept", "oegw/packet", "oegw/bpf",
     "oegw/datapath", "oegw/powers", "oegw/moniker", "oegw/socks5", "oegw/socks5/client",
     "oegw/socks5/relay", "oegw/socks5/server", "oegw/doctor", "tests", "netns-lab"],
)  # fmt: skip
def test_each_room_says_what_is_in_it(room: str) -> None:
    readme = ROOT / room / "README.md"
    assert readme.exists(), f"{room} has no README.md: what is here, and what may it know?"
    thorough = ("policy", "dnsrecords", "oegw", "oegw/moniker", "oegw/doctor", "oegw/powers")
    if room not in thorough and "socks5" not in room:
        return
    text = readme.read_text(encoding="utf-8")
    missing = [
        path.name
        for path in (ROOT / room).glob("*.py")
        if path.name not in ("__init__.py", "__main__.py") and f"`{path.name}`" not in text
    ]
    assert not missing, f"{room}/README.md does not tell of {', '.join(sorted(missing))}"


AVOIDED = re.compile(r"Manager|Factory|Handler|Helper|Utils?(?![a-z])|Context|Data(?![a-z])")


def vague_names(sources: Sources) -> list[str]:
    return [
        f"{path}:{node.lineno} class {node.name}"
        for path, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and AVOIDED.search(node.name)
    ]


def test_classes_are_named_for_what_they_are() -> None:
    found = vague_names(shipped())
    assert not found, explained(
        found, "A name that would fit any class says nothing.  Find the noun that it manages."
    )


def more_than_exports(sources: Sources) -> list[str]:
    """``__init__.py`` files in which something other than names happens."""
    found = []
    for path, tree in sources.items():
        if not path.endswith("__init__.py"):
            continue
        for node in tree.body:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            name = isinstance(node, ast.Assign) and all(
                isinstance(target, ast.Name) and target.id.startswith("__")
                for target in node.targets
            )
            if not (text or name or isinstance(node, ast.Import | ast.ImportFrom)):
                found.append(f"{path}:{node.lineno}")
    return found


def test_init_files_only_export() -> None:
    found = more_than_exports(shipped())
    assert not found, explained(found, "Nobody looks for code in __init__.py.")


def test_test_directories_are_no_packages() -> None:
    found = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("__init__.py")]
    assert not found, explained(
        found, "With --import-mode=importlib two tests of one name are two tests; packages clash."
    )


# ----------------------------------------------------- the rules can be broken


def made(**files: str) -> Sources:
    return {path.replace("__", "/") + ".py": ast.parse(text) for path, text in files.items()}


def test_imports_are_found_in_every_form() -> None:
    text = "import a.b\nfrom c import d\nfrom . import e\nfrom .f import g\nfrom .. import h\n"
    text += "def late():\n    import i\nif TYPE_CHECKING:\n    from j import k\n"
    found = {name for _, name in imports_of(ast.parse(text), "oegw/packet/ip.py")}
    assert found == {"a.b", "c.d", "oegw.packet.e", "oegw.packet.f.g", "oegw.h", "i", "j.k"}


def test_broken_rules_are_noticed() -> None:
    assert strangers(made(ike__x="import policy.rule\nimport struct"), MAY_IMPORT["ike"]) == [
        "ike/x.py:1 imports policy.rule"
    ]
    assert strangers(made(oegw__x="from scapy.all import IP"), MAY_IMPORT["oegw"])
    assert strangers(made(lab="from oegw import config"), ("lablib",))
    chain = made(ike__a="from ike import b", ike__b="from ike.c import d", ike__c="import socket")
    assert (
        reaches_io("ike/a.py", chain) == "ike/a.py -> ike/b.py -> ike/c.py imports socket in line 1"
    )
    assert reaches_io("ike/a.py", made(ike__a="from hashlib import sha256")) is None
    assert is_core("ike/v1/session.py")
    assert not is_core("dnsrecords/resolver.py")
    assert not is_core("dnsrecords/exchange.py")
    assert not is_core("oegw/daemon.py")
    assert outside_of(made(oegw__x="import tomllib"), ("tomllib",), ("oegw/config.py",))
    assert forbidden(made(oegw__packet__x="from ike.events import EspSa"), "oegw/packet/", ("ike",))
    gateway = made(oegw__moniker__x="from oegw import gateway\nfrom oegw.trace import Trace")
    assert beyond(gateway, "oegw/moniker/", MONIKER_MAY) == [
        "oegw/moniker/x.py:1 imports oegw.gateway"
    ]
    reader = made(oegw__a="from oegw import b", oegw__b="from ike.header import Header")
    assert strangers_readers("oegw/a.py", reader) == ["oegw/a.py -> oegw/b.py -> ike.header.Header"]
    assert surroundings("x.py", ast.parse("import os\nprint(os.environ['HOME'])"))
    assert surroundings("x.py", ast.parse("from sys import argv"))
    assert signings(made(x="key.decrypt(data, padding.PKCS1v15())"))
    assert not signings(made(x="cipher.decrypt(nonce, data, None)"))
    assert unexpected(["oegw", "docs", "build", ".git"], ["build/", "# docs"]) == ["docs"]
    assert vague_names(
        made(x="class PeerManager: ...\nclass MetaData: ...\nclass Database: ...")
    ) == [
        "x.py:1 class PeerManager",
        "x.py:2 class MetaData",
    ]
    assert more_than_exports({"a/__init__.py": ast.parse("'doc'\nfrom a import b\nrun()")}) == [
        "a/__init__.py:3"
    ]

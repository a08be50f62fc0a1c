"""Attacks on Moniker by programs of the host itself: names and ports of others."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from itertools import count

from oegw.moniker.daemon.holdings import Holdings
from oegw.moniker.daemon.proof import NoProof, proven
from oegw.moniker.interface import Entry, Owner, Service
from oegw.moniker.names import InvalidName, ServiceName, Version, canonical
from oegw.moniker.registry import Limits, NotFound, RegistrationRefused, Registry
from oegw.moniker.rules import namespace_for
from oegw.moniker.settings import Grant
from tests.attacks.frame import MONIKER, attack, replaced

ALICE = Owner(100, 1000, 1000, "alice")
MALLET = Owner(200, 1001, 1001, "mallet")


def service(name: str = "starwars", port: int = 40000, namespace: str = "") -> Service:
    return Service(name, Version.parse("1"), "tcp", port, "46", namespace)


def refused(registry: Registry, what: str, *arguments: object, **changes: object) -> bool:
    try:
        getattr(registry, what)(*arguments, **changes)
    except RegistrationRefused:
        return True
    return False


def _whoever(self: Registry, number: int, owner: Owner) -> Entry:
    entry = self._entries.get(number)
    if entry is None:
        raise RegistrationRefused("unknown", "no such service")
    return entry


@attack(
    MONIKER,
    "Another process, and another user, tries all numbers: to end a service, or to change it",
    source="MK-21; rpcbind's UNSET",
    defence="oegw/moniker/registry.py Registry._own",
    otherwise="any program ends or changes any service of the host",
    without=replaced(("oegw.moniker.registry.Registry._own", _whoever)),
)
def services_of_others() -> None:
    registry = Registry()
    entry = registry.register(service(), ALICE, 0.0)
    for thief in (MALLET, Owner(200, 1000, 1000, "alice"), Owner(100, 1001, 1001, "mallet")):
        for number in range(5):
            assert refused(registry, "unregister", number, thief)
            assert refused(registry, "update", number, thief, weight=1000)
    assert registry.find(ServiceName("starwars"), None, lambda below: 0) == entry


@attack(
    MONIKER,
    "A user registers a name of the system's, or in another user's namespace",
    source="MK-13, MK-21",
    defence="oegw/moniker/rules.py _may",
    otherwise="who has an account gets the connections that are meant for root's services",
    without=replaced(("oegw.moniker.rules._may", lambda *anything: True)),
)
def namespaces_of_others() -> None:
    grants = (Grant("@games", "star*"), Grant("alice", "ssh"))
    for wanted in ("-", "", "alice", "root"):
        for name in ("ssh", "starwars", "SSH"):
            try:
                where = namespace_for(grants, MALLET, (), name, wanted)
            except RegistrationRefused:
                continue
            raise AssertionError(f"mallet has {name} in {where or 'the system'!r}")
    assert namespace_for(grants, MALLET, (), "ssh", None) == "mallet"


@attack(
    MONIKER,
    "A user called Alice, whose namespace would be that of the user called alice",
    source="MK-13, MK-25: names are compared without regard to case",
    defence="oegw/moniker/rules.py _own_namespace",
    otherwise="an account with the right letters takes over another's services",
    without=replaced(("oegw.moniker.rules._own_namespace", lambda owner: canonical(owner.user))),
)
def users_with_the_same_letters() -> None:
    for user in ("Alice", "ALICE", "al\u0131ce".upper(), "alic\ufb00e"):
        try:
            where = namespace_for((), Owner(1, 1002, 1002, user), (), "http", None)
        except RegistrationRefused:
            continue
        assert where == user, f"{user} has the namespace {where}"


@attack(
    MONIKER,
    "One user registers names until there is no room for those of others",
    source="design: limits per user",
    defence="oegw/moniker/registry.py Limits.services",
    otherwise="any program keeps all others from being found",
    without=replaced(("oegw.moniker.registry.Limits", lambda **given: Limits(10**6, 3000))),
)
def services_without_end() -> None:
    from oegw.moniker import registry as doors  # what stands there now

    registry = Registry(doors.Limits(services=256, all=3000))
    for number in range(4000):
        refused(registry, "register", service(f"s{number}", 1 + number), MALLET, 0.0)
    assert registry.of_user(MALLET.uid) <= 256
    registry.register(service("starwars"), ALICE, 0.0)


@attack(
    MONIKER,
    "A process that was handed an accepted connection registers it: the server's port is its own",
    source="MK-21: nobody registers a port that he has not got",
    defence="oegw/moniker/daemon/proof.py _refuse_connected",
    otherwise="children of a server, and who gets a connection by inetd, take over its port",
    without=replaced(("oegw.moniker.daemon.proof._refuse_connected", lambda bound: None)),
)
def ports_of_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            with accepted:
                for each in (accepted, client):
                    try:
                        found = proven(each)
                    except NoProof:
                        continue
                    raise AssertionError(f"a connection proves port {found.port}")
        assert proven(server).port == port


def refused_proof(bound: socket.socket) -> None:
    try:
        found = proven(bound)
    except NoProof:
        return
    raise AssertionError(f"the socket proves port {found.port}")


@attack(
    MONIKER,
    "A user registers a socket, closes it, and waits for another's service to get its port",
    source="MK-30: stale ports",
    defence="oegw/moniker/daemon/holdings.py Holdings.is_held",
    otherwise="the firewall opens another's port under a name that the policy allows",
    without=replaced(("oegw.moniker.daemon.holdings.Holdings.is_held", lambda self, number: True)),
)
def ports_given_back() -> None:
    moments = count(0.0, 10.0)
    held = Holdings(lambda: next(moments))
    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    held.add(1, os.getpid(), os.fstat(bound.fileno()).st_ino)
    assert held.is_held(1)
    bound.close()
    with socket.create_server(("127.0.0.1", port)):  # at the same descriptor, even
        assert not held.is_held(1)
        assert held.given_up(10) == [1]


@attack(
    MONIKER,
    "A user registers a socket with SO_REUSEADDR, and another's server serves at the same port",
    source="MK-21: nobody registers a port that he has not got alone",
    defence="oegw/moniker/daemon/proof.py is_exclusive",
    otherwise="the firewall opens another's port under a name that the policy allows",
    without=replaced(("oegw.moniker.daemon.proof.is_exclusive", lambda bound: True)),
)
def ports_that_are_shared() -> None:
    with socket.socket() as mine, socket.socket() as others:
        for each in (mine, others):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        mine.bind(("127.0.0.1", 0))
        others.bind(mine.getsockname())
        others.listen()
        refused_proof(mine)
        assert proven(others).port == mine.getsockname()[1]


@attack(
    MONIKER,
    "A user makes a network namespace, where he may bind port 22, and registers that socket",
    source="MK-21: nobody registers a port that he has not got",
    defence="oegw/moniker/daemon/proof.py _refuse_other_networks",
    otherwise="the firewall opens the host's own port 22 for whoever asks for his service",
    without=replaced(("oegw.moniker.daemon.proof._refuse_other_networks", lambda bound: None)),
    marks=("netns",),
)
def ports_of_another_network() -> None:
    ours, theirs = socket.socketpair()
    program = (
        "import socket, sys; s = socket.create_server(('', 22)); "
        "socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b'x'], [s.fileno()])"
    )
    with ours, theirs:
        elsewhere = ["unshare", "--net", sys.executable, "-I", "-c", program, str(theirs.fileno())]
        subprocess.run(elsewhere, check=True, pass_fds=[theirs.fileno()], timeout=30)
        _, [descriptor], _, _ = socket.recv_fds(ours, 1, 1)
    with socket.socket(fileno=descriptor) as made:
        try:
            found = proven(made)
        except NoProof:
            return
    raise AssertionError(f"a socket of another network proves port {found.port}")


@attack(
    MONIKER,
    "A name that looks like another's: with a character that nobody sees, or of another form",
    source="MK-25; Unicode Technical Report 36",
    defence="oegw/moniker/names.py canonical",
    otherwise="what is listed as starwars is not starwars",
    without=replaced(("oegw.moniker.names.unicodedata.category", lambda character: "Ll")),
)
def names_that_look_alike() -> None:
    registry = Registry()
    registry.register(service(), ALICE, 0.0)
    for name in (
        "star\u200bwars",
        "starwars\u00ad",
        "\u2060starwars",
        "starwars\ufeff",
        "star\u202ewars",
    ):
        assert refused(registry, "register", service(name), MALLET, 0.0), ascii(name)
    for spelling in ("STARWARS", "StarWars", "\u017ftarwars"):
        assert registry.find(ServiceName(canonical(spelling)), None, lambda below: 0)


@attack(
    MONIKER,
    "A name with the end of a line in it, and what another answer would look like",
    source="MK-25; response splitting",
    defence="oegw/moniker/names.py _FORBIDDEN",
    otherwise="who registers such a name, or asks for it, writes the daemon's lines and logs",
    without=replaced(
        ("oegw.moniker.names._FORBIDDEN", re.compile(r"(?!)")),
        ("oegw.moniker.names.unicodedata.category", lambda character: "Ll"),
    ),
)
def names_with_lines_in_them() -> None:
    registry = Registry()
    for name in ("x\r\nMON/1 + 0123456789abcdef 22", "x y", "x\ty", "x\x00", "x\x85y", "x\u2028y"):
        try:
            entry = registry.register(service(name), MALLET, 0.0)
        except (RegistrationRefused, InvalidName):
            continue
        raise AssertionError(f"registered as {entry.service.service!a}")


@attack(
    MONIKER,
    "Thousands of instances of one name, so that each look-up of it takes long",
    source="design: bounded cost of a question",
    defence="oegw/moniker/registry.py Limits.instances",
    otherwise="one program with many entries makes every question for its name a slow one",
    without=replaced(("oegw.moniker.registry.MAX_INSTANCES", 10**6)),
)
def instances_without_end() -> None:
    from oegw.moniker import registry as doors

    registry = Registry(Limits(10**6, 10**6, doors.MAX_INSTANCES))
    for number in range(2000):
        refused(registry, "register", service(port=1 + number), MALLET, 0.0)
    assert len(registry) <= 256, f"a look-up goes through {len(registry)} entries"
    try:
        registry.find(ServiceName("starwars"), "udp", lambda below: 0)
    except NotFound:
        return
    raise AssertionError("found over a transport that it has not got")

"""The socket option in a real kernel: what unprivileged processes can do with it, and no more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from oegw.bpf.kernel import loaded
from oegw.sst.asking import attachment, cgroups, kernel, programs
from oegw.sst.asking.programs import ANSWER_NAME, ASK_NAME, AT_GETSOCKOPT, AT_SETSOCKOPT
from tests.support.sst_host import BIT, SstHost

pytestmark = pytest.mark.netns

# Family, level and address; the third speaks IPv4 by a socket of IPv6.
KINDS = pytest.mark.parametrize(
    ("family", "address"),
    [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1"), ("AF_INET6", "::ffff:127.0.0.1")],
    ids=["ipv4", "ipv6", "mapped"],
)
TYPES = pytest.mark.parametrize("type_", ["SOCK_STREAM", "SOCK_DGRAM"], ids=["tcp", "udp"])


def names(host: SstHost) -> list[str]:
    """All that is attached to the host's root for socket options."""
    with cgroups.opened(host.group) as group:
        return [
            each.name
            for at in (AT_SETSOCKOPT, AT_GETSOCKOPT)
            for each in kernel.attached(group, at)
        ]


@KINDS
@TYPES
def test_sst_24_unprivileged_process_asks_and_its_packets_carry_the_request(
    host: SstHost, family: str, address: str, type_: str
) -> None:
    attachment.enable(BIT, host.group)
    host.application(f"""
drop()
s = socket.socket(socket.{family}, socket.{type_})
sst.enable(s)
try:
    s.connect(("{address}", 9))
    s.send(b"x")
except ConnectionRefusedError:
    pass
say(None)
""")
    asked, silent = host.counted()
    assert asked == 1
    assert silent <= 1  # the loopback's answer to a SYN: a RST, which no socket sends


@KINDS
def test_sst_25_tcp_connection_established_with_it(
    host: SstHost, family: str, address: str
) -> None:
    """The listener's answers too, from the first: what it accepts inherits the request."""
    attachment.enable(BIT, host.group)
    said = host.application(f"""
drop()
listener = socket.create_server(
    ("::" if ":" in "{address}" else "0.0.0.0", 0), family=socket.{family},
    dualstack_ipv6=":" in "{address}")
sst.enable(listener)
s = socket.socket(socket.{family})
sst.enable(s)
s.connect(("{address}", listener.getsockname()[1]))
accepted = listener.accept()[0]
s.sendall(b"ports are hidden")
got = accepted.recv(100).decode()
s.close(); accepted.close()
say([got, sst.enabled(s) if s.fileno() >= 0 else None])
""")
    assert said[0] == "ports are hidden"
    asked, silent = host.counted()
    assert asked >= 6  # SYN, SYN-ACK, ACK, the words, FIN, FIN
    assert silent == 0


@KINDS
def test_sst_25_udp_datagrams_sent_with_it(host: SstHost, family: str, address: str) -> None:
    """Two sockets, one of which asks: each packet goes as its own socket says."""
    attachment.enable(BIT, host.group)
    host.application(f"""
drop()
there = socket.socket(socket.{family}, socket.SOCK_DGRAM)
there.bind(("{address}", 0))
for number, asks in enumerate((True, False, True)):
    s = socket.socket(socket.{family}, socket.SOCK_DGRAM)
    sst.enable(s, asks)
    s.sendto(b"x", there.getsockname())
    there.recv(1)
say(None)
""")
    assert host.counted() == (2, 1)


@KINDS
@TYPES
def test_sst_26_getsockopt_returns_the_state_and_it_can_be_cleared(
    host: SstHost, family: str, address: str, type_: str
) -> None:
    attachment.enable(BIT, host.group)
    said = host.application(f"""
drop()
s = socket.socket(socket.{family}, socket.{type_})
states = [sst.enabled(s)]
for on in (True, True, False, False, True):
    sst.enable(s, on)
    states.append(sst.enabled(s))
levels = [s.getsockopt(IP, 200), len(s.getsockopt(IP, 200, 100))]
if s.family == socket.AF_INET6:
    levels += [s.getsockopt(IPV6, 200)]
    s.setsockopt(IPV6, 200, 0)
    levels += [s.getsockopt(IP, 200)]
say([states, levels])
""")
    assert said[0] == [False, True, True, False, False, True]
    assert said[1] == ([1, 4] if family == "AF_INET" else [1, 4, 1, 0])


def test_sst_26_cleared_it_counts_for_flows_that_begin_later(host: SstHost) -> None:
    attachment.enable(BIT, host.group)
    host.application("""
drop()
s = socket.socket(type=socket.SOCK_DGRAM)
sst.enable(s)
s.sendto(b"x", ("127.0.0.1", 9))
sst.enable(s, False)
s.sendto(b"x", ("127.0.0.1", 10))
say(None)
""")
    assert host.counted() == (1, 1)


def test_other_bits_of_the_mark_are_left_alone(host: SstHost) -> None:
    attachment.enable(BIT, host.group)
    said = host.application("""
s = socket.socket()
found = []
for before in (0, 0x80000005, 0xfeffffff, 0xffffffff, 0x3e000000):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", before))
    row = [mark(s)]
    sst.enable(s); row.append(mark(s))
    sst.enable(s, False); row.append(mark(s))
    found.append(row)
say(found)
""")
    for before, on, off in said:
        assert on == before | BIT
        assert off == before & ~BIT


def test_what_is_no_valid_request_is_refused_and_changes_nothing(host: SstHost) -> None:
    attachment.enable(BIT, host.group)
    said = host.application("""
drop()
found = {}
for family, level in ((socket.AF_INET, IP), (socket.AF_INET6, IPV6), (socket.AF_INET6, IP)):
    s = socket.socket(family)
    s.setsockopt(level, 200, 1)
    for value in (2, 3, -1, 0x01000000, 0x100, b"", b"\\1", b"\\1\\0\\0", b"\\1\\0\\0\\0\\0",
                  bytes(8), bytes(5000)):
        found[f"{family} {level} {value!r:.40}"] = error(s.setsockopt, level, 200, value)
    for length in (0, 1, 2, 3):
        found[f"{family} {level} get {length}"] = error(s.getsockopt, level, 200, length or 1)
    assert sst.enabled(s)
s = socket.socket()
found["ipv6 of ipv4"] = error(s.setsockopt, IPV6, 200, 1) is None
say(found)
""")
    assert said.pop("ipv6 of ipv4") is False
    assert set(said.values()) == {"EINVAL"}
    assert len(said) == 3 * (11 + 4)


def test_other_options_and_sockets_are_as_they_were(host: SstHost) -> None:
    """The same calls, with the option and without: Linux answers the same to each.

    The number is that of MRT_INIT, by which daemons of multicast routing begin.
    """
    calls = """
found = []
def tried(call, *arguments):
    try:
        answer = call(*arguments)
        found.append(answer.hex() if isinstance(answer, bytes) else answer)
    except OSError as error:
        found.append(errno.errorcode[error.errno])
def long_getsockopt(s, level, option):
    import ctypes
    value, length = ctypes.create_string_buffer(20000), ctypes.c_int(20000)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(s.fileno(), level, option, value, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "")
    return value.raw[:length.value]
for family in (socket.AF_INET, socket.AF_INET6):
    for type_ in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, type_)
        for level in (IP, IPV6, socket.SOL_SOCKET, socket.SOL_TCP):
            for option in (*range(1, 80), 199, 201, 202, 300):
                if (level, option) not in ((1, 57), (6, 24)):  # a random cookie, a clock
                    tried(s.getsockopt, level, option, 4)
        for ttl in (0, 1, 255, 256):
            tried(s.setsockopt, IP, socket.IP_TTL, ttl); tried(s.getsockopt, IP, socket.IP_TTL)
            tried(s.setsockopt, IPV6, 16, ttl); tried(s.getsockopt, IPV6, 16)
        # Longer than a page, of which BPF sees the beginning only.
        tried(s.setsockopt, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo" + bytes(6000))
        tried(long_getsockopt, s, socket.SOL_SOCKET, socket.SO_BINDTODEVICE)
        tried(long_getsockopt, s, IP, socket.IP_TTL)
for family, level, protocol in ((socket.AF_INET, IP, 2), (socket.AF_INET6, IPV6, 58)):
    s = socket.socket(family, socket.SOCK_RAW, protocol)  # multicast routing (MRT_INIT, MRT_DONE)
    tried(s.setsockopt, level, 200, 1); tried(s.setsockopt, level, 201, b"")
    tried(s.setsockopt, level, 200, 2); tried(s.getsockopt, level, 200, 4)
for s in (socket.socket(socket.AF_UNIX), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
          socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136),
          socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)):
    for level in (IP, IPV6):
        tried(s.setsockopt, level, 200, 1); tried(s.getsockopt, level, 200)
say(found)
"""
    before = host.application(calls)
    attachment.enable(BIT, host.group)
    assert host.application(calls) == before
    assert len(before) > 1000
    # Multicast routing begins on both raw sockets, and UDP-Lite has no such option.
    assert before.count("EOPNOTSUPP") + before.count("ENOPROTOOPT") > 100


def test_without_the_option_the_error_says_what_to_do(host: SstHost) -> None:
    said = host.application("""
found = []
for s in (socket.socket(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)):
    for call in (sst.enable, sst.enabled):
        try:
            call(s)
        except sst.SstUnavailable as error:
            found.append([errno.errorcode[error.errno], str(error)])
say(found)
""")
    assert len(said) == 4
    for code, text in said:
        assert code == "ENOPROTOOPT"
        assert "oegw sst enable" in text


def test_enabled_twice_is_enabled_once(host: SstHost) -> None:
    for _ in range(3):
        assert host.oegw("sst", "enable") == f"enabled: {host.mount}\n"
    assert names(host) == [ASK_NAME, ANSWER_NAME]


def test_disabled_nothing_is_left_and_sockets_that_asked_go_on(host: SstHost) -> None:
    host.oegw("sst", "enable")
    below = host.group / "below"
    below.mkdir()
    try:
        host.oegw("sst", "enable", "--cgroup", host.mount / "below")
        assert host.oegw("sst", "disable") == (
            f"disabled: {host.mount}\ndisabled: {host.mount / 'below'}\n"
        )
        assert names(host) == []
        assert host.oegw("sst", "disable") == ""
    finally:
        below.rmdir()
    assert host.application("say(error(sst.enable, socket.socket()))") == "ENOPROTOOPT"


def test_disabled_by_several_at_once(host: SstHost) -> None:
    """What another has detached meanwhile is gone, and no fault."""
    with ThreadPoolExecutor(4) as several:
        for _ in range(50):
            attachment.enable(BIT, host.group)
            for each in [several.submit(attachment.disable, host.group) for _ in range(4)]:
                each.result()
    assert names(host) == []


def test_enabled_in_a_group_and_in_its_parent_it_is_done_once(host: SstHost) -> None:
    attachment.enable(BIT, host.group)
    below = host.group / "below"
    below.mkdir()
    try:
        attachment.enable(BIT, below)
        said = host.application(f"""
open("{host.mount}/below/cgroup.procs", "w").write("0")
drop()
s = socket.socket()
sst.enable(s)
say([sst.enabled(s), mark(s), error(s.setsockopt, IP, 200, 2), error(s.setsockopt, IP, 2, 65)])
""")
        assert said == [True, BIT, "EINVAL", None]
        host.oegw("sst", "disable", "--cgroup", host.mount / "below")
        assert names(host) == [ASK_NAME, ANSWER_NAME]
    finally:
        below.rmdir()


def test_programs_of_others_stay(host: SstHost) -> None:
    """Ours go beside them, and away without them."""

    other = replace(programs.ask(0x40, 4096), name="somebody_elses")
    with cgroups.opened(host.group) as group, loaded(other) as theirs:
        kernel.attach(group, theirs, AT_SETSOCKOPT)
        try:
            host.oegw("sst", "enable")
            assert names(host) == ["somebody_elses", ASK_NAME, ANSWER_NAME]
            host.oegw("sst", "disable")
            assert names(host) == ["somebody_elses"]
        finally:
            kernel.detach(group, theirs, AT_SETSOCKOPT)


def test_other_mask_replaces_the_programs(host: SstHost, tmp_path: object) -> None:
    host.oegw("sst", "enable")
    attachment.enable(0x40, host.group)
    assert names(host) == [ASK_NAME, ANSWER_NAME]
    assert host.application("s = socket.socket(); sst.enable(s); say(mark(s))") == 0x40
    said = host.oegw("sst")
    assert "not for this sst.mark_mask" in said
    host.oegw("sst", "enable")
    assert "not for this" not in host.oegw("sst")


def test_state_says_who_has_it(host: SstHost) -> None:
    assert "this process does not have it" in host.oegw("sst")
    host.oegw("sst", "enable")
    assert host.oegw("sst").splitlines()[1:] == [
        "socket option  this process has it",
        f"               {host.mount}",
    ]


def test_who_is_not_root_is_told_so(host: SstHost) -> None:
    said = host.application("""
from oegw import cli
codes = []
drop()
for words in (["sst", "enable"], ["sst", "disable"], ["sst", "run", "--", "true"], ["sst"]):
    codes.append(cli.main(words))
say(codes)
""")
    assert said == [5, 5, 5, 0]


@pytest.mark.parametrize(("path", "why"), [("/tmp", "no cgroup"), ("/nowhere", "No such file")])
def test_what_is_no_group_is_named(host: SstHost, path: str, why: str) -> None:
    for command in ("enable", "disable"):
        said = host.oegw("sst", command, "--cgroup", path, code=1)
        assert path in said
        assert why in said


def test_group_in_which_others_are_alone_is_told(host: SstHost) -> None:
    """A program attached without BPF_F_ALLOW_MULTI admits none beside it."""
    below = host.group / "alone"
    below.mkdir()
    try:
        with cgroups.opened(below) as group, loaded(programs.answer(1, 4096)) as theirs:
            kernel.attach(group, theirs, AT_GETSOCKOPT, alone=True)
            said = host.oegw("sst", "enable", "--cgroup", host.mount / "alone", code=1)
        assert "allows none beside it" in said
        with cgroups.opened(below) as group:
            assert kernel.attached(group, AT_SETSOCKOPT) == ()  # taken back
    finally:
        below.rmdir()

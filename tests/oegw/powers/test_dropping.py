"""What is given up, tried in processes of its own."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from oegw.powers.dropping import Cap, User, of_bits, user_of
from oegw.powers.systemcalls import EXECUTING, NEVER, OPENING, TAKING, refusing

ROOT = Path(__file__).parents[3]


def tried(code: str) -> str:
    """What a Python process says that runs ``code``."""
    head = "import os, socket, sys\nfrom oegw.powers.dropping import *\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", head + textwrap.dedent(code)],
        capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_kept_works_and_all_else_is_refused() -> None:
    said = tried(
        """
        drop(None, (Cap.NET_RAW,))
        socket.socket(socket.AF_INET, socket.SOCK_RAW, 50).close()
        try:
            socket.socket().bind(("127.0.0.1", 81))
        except PermissionError:
            print(sorted(permitted()))
        """
    )
    assert said == str([int(Cap.NET_RAW)])


def test_what_is_executed_gains_nothing_although_it_is_root() -> None:
    command = "import os; print(open('/proc/self/status').read())"
    said = tried(
        f"""
        drop(None, (Cap.NET_RAW,))
        os.execv(sys.executable, [sys.executable, "-c", {command!r}])
        """
    )
    assert "CapPrm:\t0000000000000000" in said
    assert "NoNewPrivs:\t1" in said


def test_what_is_passed_on_is_what_was_kept() -> None:
    command = "print(open('/proc/self/status').read())"
    said = tried(
        f"""
        drop(User("nobody", 65534, 65534), (Cap.NET_RAW,), pass_on=True)
        os.execv(sys.executable, [sys.executable, "-c", {command!r}])
        """
    )
    assert f"CapEff:\t{1 << Cap.NET_RAW:016x}" in said
    assert "Uid:\t65534\t65534\t65534\t65534" in said


def test_it_never_comes_back() -> None:
    said = tried(
        """
        drop(User("nobody", 65534, 65534))
        for attempt in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
            try:
                attempt()
            except PermissionError:
                print("no")
        """
    )
    assert said.split() == ["no"] * 3


def test_processes_of_the_same_user_do_not_look_into_each_other() -> None:
    said = tried(
        """
        reading, writing = os.pipe()
        first = os.fork()
        nobody = User("nobody", 65534, 65534)
        if not first:
            drop(nobody)
            os.write(writing, b"x")
            os.read(0, 1)
            os._exit(0)
        os.read(reading, 1)
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        for name in ("mem", "environ"):
            try:
                open(f"/proc/{first}/{name}", "rb")
            except PermissionError:
                print("no")
        """
    )
    assert said.split() == ["no"] * 2


@pytest.mark.parametrize(
    ("forbid", "attempt"),
    [
        ("()", "os.unshare(0) if hasattr(os, 'unshare') else LIBC.unshare(0)"),
        ("EXECUTING", "os.execv('/bin/true', ['true'])"),
        ("OPENING", "socket.socket()"),
        ("OPENING", "open('/dev/null')"),
    ],
)
def test_a_system_call_that_is_forbidden_is_refused(forbid: str, attempt: str) -> None:
    said = tried(
        f"""
        import ctypes, errno
        from oegw.powers.systemcalls import EXECUTING, OPENING
        LIBC = ctypes.CDLL(None, use_errno=True)
        drop(None, forbid={forbid})
        try:
            if {attempt} == -1:
                raise OSError(ctypes.get_errno(), "")
        except OSError as error:
            print(error.errno == errno.EPERM)
        """
    )
    assert said == "True"


def test_with_a_second_thread_nothing_is_half_dropped() -> None:
    said = tried(
        """
        import threading
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        try:
            drop()
        except PowerError as error:
            print(error)
        sys.stdout.flush()
        os._exit(0)
        """
    )
    assert "second thread" in said


def test_only_one_right_is_in_effect_for_a_moment() -> None:
    said = tried(
        """
        with only_effective(Cap.NET_RAW):
            try:
                os.sethostname if False else socket.socket().bind(("127.0.0.1", 81))
            except PermissionError:
                print("no")
        s = socket.socket(); s.bind(("127.0.0.1", 0)); print("yes")
        print(Cap.NET_ADMIN in permitted())
        """
    )
    assert said.split() == ["no", "yes", "True"]


def test_what_a_container_lacks_is_named() -> None:
    said = tried(
        """
        from pathlib import Path
        from oegw.powers import running
        keep_only([each for each in Cap if each not in (Cap.NET_ADMIN, Cap.NET_RAW)])
        try:
            running._require_rights(None)
        except PowerError as error:
            print(error)
        """
    )
    assert said == "this process lacks CAP_NET_ADMIN, CAP_NET_RAW, although it is root's"


def test_a_user_goes_by_words_to_another_process() -> None:
    user = User("nobody", 65534, 65533)
    assert user_of(user.words()) == user
    assert user_of("") is None
    assert User.named("nosuchuser") is None
    assert (named := User.named("nobody")) is not None
    assert named.uid == 65534


def test_bits_are_numbers() -> None:
    assert of_bits(1 << 12 | 1 << 40) == {12, 40}


def simulated(program: list[tuple[int, int, int, int]], machine: int, number: int) -> int:
    """The filter run by hand: a second reading of classic BPF."""
    seen = struct.pack("=II", number, machine)
    at = loaded = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("=I", seen, k)
            case 0x15:
                at += yes if loaded == k else no
            case 0x35:
                at += yes if loaded >= k else no
            case 0x06:
                return k


@pytest.mark.parametrize(
    ("name", "machine", "calls"),
    [("x86_64", 0xC000003E, (59, 322, 438, 101)), ("aarch64", 0xC00000B7, (221, 281, 438, 117))],
)
def test_the_filter_refuses_what_it_says(name: str, machine: int, calls: tuple[int, ...]) -> None:
    program = refusing(NEVER | EXECUTING | TAKING | OPENING, name)
    assert program is not None
    refused = {n for n in range(1000) if simulated(program, machine, n) != 0x7FFF0000}
    assert refused >= set(calls)
    assert (
        len(refused) == sum(1 for each in program if each[0] == 0x15) - 1
    )  # the machine is compared as well
    assert simulated(program, machine, 0x40000001) != 0x7FFF0000
    assert simulated(program, 0x40000003, 0) != 0x7FFF0000  # a program of 32 bits
    assert refusing(NEVER, "vax") is None


def test_sockets_are_marked_without_the_power_over_routes() -> None:
    """By whom has CAP_NET_RAW, since Linux 5.17; before, the mind keeps more and status says it."""
    said = tried(
        """
        drop(None, (Cap.NET_RAW,))
        socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)
        print("marked")
        """
    )
    assert said == "marked"
    assert socket.SO_MARK


_RULE = r"table inet oegw {\n chain c {\n ip saddr strangers.example accept\n }\n}\n"


def asked_the_dns(first: str, tmp_path: Path) -> bool:
    """Whether libnftables, given a name in a rule, asks for it after ``first``."""
    resolvers = tmp_path / "resolv.conf"
    resolvers.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    code = textwrap.dedent(
        f"""
        import socket
        from oegw.intercept import nft
        from oegw.powers.dropping import look_up_no_hosts
        nft._NO_DNS = 0  # which not every libnftables has
        dns = socket.socket(type=socket.SOCK_DGRAM)
        dns.bind(("127.0.0.1", 53))
        dns.setblocking(False)
        {first}
        assert nft.NftHandle().speak("{_RULE}", 0, dry=True).failed
        try:
            print(b"strangers" in dns.recv(512))
        except BlockingIOError:
            print(False)
        """
    )
    shell = f'ip link set lo up; mount --bind {resolvers} /etc/resolv.conf; exec "$@"'
    inside = ["unshare", "--net", "--mount", "sh", "-c", shell, "sh"]
    done = subprocess.run(
        [*inside, sys.executable, "-P", "-c", code],
        capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout == "True\n"


@pytest.mark.netns
def test_no_name_in_a_rule_has_the_dns_asked(tmp_path: Path) -> None:
    assert asked_the_dns("", tmp_path)  # or this test could not fail
    assert not asked_the_dns("look_up_no_hosts()", tmp_path)

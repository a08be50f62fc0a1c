"""Users' passwords (SK-1, RFC 1929)."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, ip_address
from unittest.mock import patch

import pytest

from oegw.socks5 import passwords
from oegw.socks5.passwords import (
    GUESSERS,
    OF_A_NETWORK,
    Guesses,
    InvalidHash,
    Passwords,
    check,
    hashed,
)
from oegw.socks5.settings import User
from oegw.socks5.wire import Credentials

SALT = bytes(range(16))
KEY = bytes(32)


def quick(password: bytes, salt: bytes = SALT) -> str:
    """N = 2: for tests of what is not the hash itself."""
    digest = hashlib.scrypt(password, salt=salt, n=2, r=1, p=1, dklen=32)
    return f"$scrypt$ln=1,r=1,p=1${passwords._text(salt)}${passwords._text(digest)}"


def alice_and_bob() -> Passwords:
    users = [User("alice", quick(b"secret")), User("bob", quick(b"sesame"))]
    return Passwords(users, KEY)


def said(user: str, password: bytes) -> Credentials:
    return Credentials(user.encode(), password)


@pytest.mark.parametrize("password", [b"secret", b"s", b"\xff" * 255, "pässwörd".encode()])
def test_a_hash_is_of_its_password(password: bytes) -> None:
    written = hashed(password, SALT)
    check(written)
    assert written.startswith("$scrypt$ln=14,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$")
    known = Passwords([User("alice", written)], KEY)
    assert known.verify(said("alice", password))
    assert not known.verify(said("alice", password + b"x"))


def test_a_known_answer_of_rfc_7914() -> None:
    """Section 12: P = "pleaseletmein", S = "SodiumChloride", N = 16384, r = 8, p = 1."""
    wanted = bytes.fromhex(
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
    )
    written = (
        f"$scrypt$ln=14,r=8,p=1${passwords._text(b'SodiumChloride')}${passwords._text(wanted)}"
    )
    known = Passwords([User("alice", written)], KEY)
    assert known.verify(said("alice", b"pleaseletmein"))
    assert not known.verify(said("alice", b"pleaseletmeout"))


@pytest.mark.parametrize(
    ("user", "password", "right"),
    [
        ("alice", b"secret", True),
        ("bob", b"sesame", True),
        ("alice", b"sesame", False),
        ("bob", b"", False),
        ("carol", b"secret", False),
        ("ALICE", b"secret", False),
    ],
)
def test_who_is_let_in(user: str, password: bytes, right: bool) -> None:
    assert alice_and_bob().verify(said(user, password)) is right


def test_nobody_is_let_in_where_there_are_no_users() -> None:
    assert not Passwords([], KEY).verify(said("alice", b"secret"))


def test_who_was_verified_is_known() -> None:
    known = alice_and_bob()
    assert not known.known(said("alice", b"secret"))
    known.verify(said("alice", b"wrong"))
    assert not known.known(said("alice", b"wrong"))
    known.verify(said("alice", b"secret"))
    assert known.known(said("alice", b"secret"))
    assert not known.known(said("alice", b"secret2"))
    assert not known.known(said("bob", b"secret"))
    with patch.object(hashlib, "scrypt", side_effect=AssertionError("asked again")):
        assert known.known(said("alice", b"secret"))


def test_a_reload_forgets_whose_hash_changed() -> None:
    known = alice_and_bob()
    for user, password in (("alice", b"secret"), ("bob", b"sesame")):
        known.verify(said(user, password))
    known.replace([User("alice", quick(b"another")), User("bob", quick(b"sesame"))])
    assert not known.known(said("alice", b"secret"))
    assert not known.verify(said("alice", b"secret"))
    assert known.known(said("bob", b"sesame"))
    known.replace([])
    assert not known.known(said("bob", b"sesame"))


def test_a_stranger_costs_what_a_user_does() -> None:
    """A name that there is not can't be told from a wrong password by the time that it takes."""
    dear = "$scrypt$ln=10,r=8,p=2$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43
    known = Passwords([User("alice", quick(b"secret")), User("bob", dear)], KEY)
    asked = []
    with patch.object(
        hashlib, "scrypt", side_effect=lambda *_, **keys: asked.append(keys) or bytes(32)
    ):
        known.verify(said("bob", b"x"))
        known.verify(said("carol", b"x"))
    assert [(each["n"], each["r"], each["p"]) for each in asked] == [(1024, 8, 2)] * 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "$2b$12$abcdefghijklmnopqrstuv",
        "$scrypt$ln=14,r=8,p=1$AAECAwQFBgcICQoLDA0ODw",
        "$scrypt$ln=14,r=8$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43,
        "$scrypt$r=8,ln=14,p=1$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43,
        "$scrypt$ln=x,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43,
        "$scrypt$ln=14,r=8,p=1$AAEC$" + "A" * 43,
        "$scrypt$ln=14,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$AAAA",
        "$scrypt$ln=14,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$" + "A" * 42 + "!",
        "$scrypt$ln=0,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43,
        "$scrypt$ln=20,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43,  # a GiB
        "$scrypt$ln=14,r=8,p=99$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43,
        "$scrypt$ln=99999999,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43,
    ],
)
def test_what_is_no_hash_is_told_without_being_shown(text: str) -> None:
    with pytest.raises(InvalidHash) as raised:
        check(text)
    assert not text or text not in str(raised.value)


def test_secrets_are_silent() -> None:
    known = alice_and_bob()
    assert "secret" not in repr(known)
    assert "scrypt" not in f"{known!r} {User('alice', quick(b'secret'))!r}"
    assert "secret" not in repr(passwords._parse(quick(b"secret")))


# ---------------------------------------------------------------- guesses

HONEST, GUESSER = ip_address("192.168.1.10"), ip_address("192.168.1.66")


def test_who_guesses_too_often_waits_and_nobody_else() -> None:
    guesses = Guesses(failures=3, window=60.0)
    for second in range(3):
        assert guesses.may_try(GUESSER, 100.0 + second)
        guesses.failed(GUESSER, 100.0 + second)
    assert not guesses.may_try(GUESSER, 103.0)
    assert not guesses.may_try(ip_address(f"::ffff:{GUESSER}"), 159.9)
    assert guesses.may_try(HONEST, 103.0)
    assert guesses.may_try(GUESSER, 160.0)
    guesses.failed(GUESSER, 160.0)
    assert guesses.may_try(GUESSER, 161.0)


def test_an_ipv6_network_has_more_addresses_than_guesses() -> None:
    guesses = Guesses(failures=3, window=60.0)
    tried = 0
    for number in range(100):
        address = ip_address("2001:db8::") + number
        if guesses.may_try(address, 100.0):
            tried += 1
            guesses.failed(address, 100.0)
    assert tried == 3 * OF_A_NETWORK
    assert guesses.may_try(ip_address("2001:db8:0:1::1"), 100.0)
    assert guesses.may_try(ip_address("2001:db8::1"), 160.0)


def test_guessers_are_remembered_up_to_a_number() -> None:
    guesses = Guesses(failures=1)
    for number in range(GUESSERS + 10):
        guesses.failed(IPv4Address(number), 0.0)
    assert guesses.may_try(IPv4Address(9), 1.0)
    assert not guesses.may_try(IPv4Address(10), 1.0)

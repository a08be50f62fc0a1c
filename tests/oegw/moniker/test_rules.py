"""Who may register which name, and who may ask for it (MK-17, MK-18, MK-21)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from oegw.moniker.interface import Owner
from oegw.moniker.names import SYSTEM
from oegw.moniker.registry import RegistrationRefused
from oegw.moniker.rules import Asked, Verdict, decide, namespace_for
from oegw.moniker.settings import Grant, ServiceRule
from oegw.moniker.wire import Code

ALICE = Owner(pid=100, uid=1000, gid=1000, user="alice")
BOB = Owner(pid=200, uid=1001, gid=1001, user="bob")
ROOT = Owner(pid=1, uid=0, gid=0, user="root")
WWW = Owner(pid=33, uid=33, gid=33, user="www-data")
GRANTS = (
    Grant("alice", "starwars"),
    Grant("@games", "chess*", "-"),
    Grant("bob", "h??p", "Shared"),
)


def namespace(
    owner: Owner, service: str, wanted: str | None = None, groups: tuple[str, ...] = ()
) -> str | None:
    """None: refused."""
    try:
        return namespace_for(GRANTS, owner, groups, service, wanted)
    except RegistrationRefused as refused:
        return None if refused.code == "denied" else f"refused: {refused.code}"


@pytest.mark.parametrize(
    ("owner", "service", "wanted", "groups", "where"),
    [
        (BOB, "http", None, (), "bob"),  # by default one's own
        (BOB, "http", "bob", (), "bob"),
        (BOB, "http", "BOB", (), "bob"),
        (BOB, "http", "alice", (), None),
        (BOB, "http", "-", (), None),
        (BOB, "http", SYSTEM, (), None),
        (ROOT, "http", None, (), SYSTEM),
        (ROOT, "http", "alice", (), "alice"),
        (ROOT, "http", "root", (), "root"),
        (WWW, "http", None, (), SYSTEM),  # an account of the system's
        (WWW, "http", "-", (), SYSTEM),
        (WWW, "http", "www-data", (), "www-data"),
        (WWW, "http", "alice", (), None),
        (ALICE, "starwars", None, (), SYSTEM),  # granted
        (ALICE, "StarWars", "-", (), SYSTEM),
        (ALICE, "starwars", "alice", (), "alice"),
        (ALICE, "starwars2", None, (), "alice"),
        (ALICE, "starwars2", "-", (), None),
        (BOB, "starwars", None, (), "bob"),
        (BOB, "chess-club", None, ("users", "games"), SYSTEM),  # granted to a group
        (BOB, "chess-club", None, ("users",), "bob"),
        (BOB, "checkers", None, ("games",), "bob"),
        (BOB, "http", "shared", (), "shared"),
        (BOB, "https", "shared", (), None),
        (ALICE, "http", "shared", (), None),
    ],
)
def test_mk_21_who_registers_where(
    owner: Owner, service: str, wanted: str | None, groups: tuple[str, ...], where: str | None
) -> None:
    assert namespace(owner, service, wanted, groups) == where


@pytest.mark.parametrize("user", ["Bob", "a b", "a:b", "-", "x" * 300])
def test_mk_21_a_user_whose_name_is_written_differently_has_no_namespace(user: str) -> None:
    """``Bob`` would register where ``bob`` does."""
    other = Owner(300, 1002, 1002, user)
    assert namespace(other, "http") is None
    assert namespace(other, "http", "bob") is None
    assert namespace(other, "chess", None, ("games",)) == SYSTEM


@pytest.mark.parametrize(("service", "wanted"), [("a b", None), ("http", "a:b"), ("*", "-")])
def test_names_that_are_none_are_refused_as_such(service: str, wanted: str | None) -> None:
    with pytest.raises(RegistrationRefused) as caught:
        namespace_for((), ROOT, (), service, wanted)
    assert caught.value.code == "malformed"


def test_a_grant_s_group_is_no_user_of_that_name() -> None:
    games = Owner(400, 1003, 1003, "games")
    assert namespace(games, "chess", None) == "games"
    assert namespace(Owner(400, 1003, 1003, "@games"), "chess") is None


# -------------------------------------------------------------------------- policy


def asked(
    service: str = "http",
    namespace: str = SYSTEM,
    client: str | None = "192.0.2.1",
    host: str | None = "198.51.100.1",
    *,
    encrypted: bool = False,
) -> Asked:
    return Asked(
        service,
        namespace,
        ip_address(client) if client else None,
        ip_address(host) if host else None,
        encrypted,
    )


ALLOWED = Verdict(True)


def test_without_rules_all_may() -> None:
    assert decide((), asked()) == ALLOWED


def test_mk_17_the_first_rule_that_matches_decides() -> None:
    rules = (
        ServiceRule(True, "http", origin="one"),
        ServiceRule(False, "http*", origin="two"),
        ServiceRule(True, "*", "alice", origin="three"),
        ServiceRule(False, origin="four"),
    )
    assert decide(rules, asked("http")) == Verdict(True, None, "one")
    assert decide(rules, asked("https")) == Verdict(False, Code.DENIED, "two")
    assert decide(rules, asked("ssh", "alice")) == Verdict(True, None, "three")
    assert decide(rules, asked("https", "alice")) == Verdict(False, Code.DENIED, "two")
    assert decide(rules, asked("ssh")) == Verdict(False, Code.DENIED, "four")


@pytest.mark.parametrize(
    ("rule", "matched", "others"),
    [
        (ServiceRule(False, "Star*"), [asked("starwars")], [asked("wars")]),
        (ServiceRule(False, "a?c"), [asked("abc")], [asked("ac"), asked("abbc")]),
        (ServiceRule(False, "a[b]"), [asked("a[b]")], [asked("ab")]),
        (ServiceRule(False, "CAFE\u0301"), [asked("café")], [asked("cafe")]),
        (ServiceRule(False, namespace="-"), [asked()], [asked(namespace="alice")]),
        (ServiceRule(False, namespace="*"), [asked(), asked(namespace="alice")], []),
        (
            ServiceRule(False, clients=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))),
            [asked(), asked(client="2001:db8::1")],
            [asked(client="192.0.3.1"), asked(client=None)],
        ),
        (
            ServiceRule(False, hosts=(ip_network("198.51.100.1"),)),
            [asked()],
            [asked(host="198.51.100.2"), asked(host=None), asked(host="2001:db8::1")],
        ),
    ],
)
def test_mk_18_what_a_rule_matches(
    rule: ServiceRule, matched: list[Asked], others: list[Asked]
) -> None:
    assert all(not decide((rule,), each).allowed for each in matched)
    assert all(decide((rule,), each) == ALLOWED for each in others)


def test_a_rule_for_encrypted_questions_refuses_the_others() -> None:
    """It decides for both: else a service that is meant to be private would be had in clear."""
    rules = (ServiceRule(True, "private", encrypted=True, origin="p"),)
    assert decide(rules, asked("private", encrypted=True)) == Verdict(True, None, "p")
    assert decide(rules, asked("private")) == Verdict(False, Code.CLEAR, "p")
    assert decide(rules, asked("other")) == ALLOWED
    denying = (ServiceRule(False, "x", encrypted=True),)
    assert not decide(denying, asked("x")).allowed
    assert not decide(denying, asked("x", encrypted=True)).allowed

"""What the hands refuse, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oegw.intercept.interface import InterceptSettings
from oegw.intercept.jump import Jump, QueueRule, trap_rules
from oegw.intercept.nft import NftHandle
from oegw.intercept.ruleset import residue, static_chains, whole_table
from oegw.powers.orders import Iptables, NfMessage
from oegw.powers.permits import NftPermit, NotPermittedError, check_iptables
from oegw.sst.plane import wire
from tests.support.intercept_policy import policy
from tests.support.own_network import own_network

OURS = frozenset((("inet", "oegw"), ("inet", "oegw_probe"), ("netdev", "oegw_sst")))
PERMIT = NftPermit(OURS)
SETTINGS = InterceptSettings(("out0",), "oegw0")


def permits(command: str, permit: NftPermit = PERMIT) -> bool:
    try:
        permit.check(command)
    except NotPermittedError:
        return False
    return True


def test_what_interception_writes_is_permitted() -> None:
    chains = static_chains(policy(), ())
    for queue in (True, False):
        assert permits(whole_table(SETTINGS, chains, nft_queue=queue, nft_reject=True))
    assert permits(residue(SETTINGS, chains, nft_reject=True))


@pytest.mark.parametrize(
    "command",
    [
        "add table inet oegw",
        "delete table inet oegw\ntable inet oegw { chain c { } }",
        'add rule inet oegw c iifname "a;b{" accept',
        "create element inet oegw pair4 { 192.1.0.65 . 192.2.0.66 timeout 5ms : accept }",
        "list ruleset",
        "list chains",
        "list table ip filter",
        "list set inet fw4 lan_devices",
        "list counters table inet oegw",
        "add table netdev oegw_sst; delete table netdev oegw_sst",
        "",
        "\n \n",
    ],
)
def test_ours_is_permitted(command: str) -> None:
    assert permits(command)


FOREIGN = [
    "flush ruleset",
    "delete table inet filter",
    "add table ip oegw",
    "add table inet oegw2",
    "table inet oegw { }\nflush ruleset",
    "table inet oegw { }; flush ruleset",
    'table inet oegw { chain c { } } \n include "/etc/shadow"',
    'include "/etc/shadow"',
    'table inet oegw { include "/etc/shadow" }',
    'table inet oegw { chain c { include "/etc/shadow" } }',
    'table inet oegw { 0include "/etc/shadow" }',
    'table inet oegw { -include "/etc/shadow" }',
    "define a = 1",
    "table inet oegw { define a = 1 }",
    "add rule inet oegw c ip saddr $a accept",
    "add rule inet oegw c accept # \nflush ruleset",
    "add rule inet oegw c accept \\\n",
    'add rule inet oegw c comment "a\nflush ruleset"',
    'add rule inet oegw c comment "a',
    "add rule inet oegw c { ",
    "} flush ruleset",
    "list ruleset; flush ruleset",
    "list flowtables",
    'list table inet "oegw"',
    "reset counters",
    "monitor",
    "export json",
    "import json",
    "describe ip saddr",
    "rename chain inet oegw a b",
    "inet oegw",
    "add",
    "add element inet",
    "\0flush ruleset",
    'add rule inet "x" oegw c accept',
]


@pytest.mark.parametrize("command", FOREIGN)
def test_what_is_not_ours_is_refused(command: str) -> None:
    assert not permits(command)


@given(st.text(alphabet='{};\n" tableinetoegwflushruleset', max_size=60))
def test_a_foreign_command_on_a_line_of_its_own_is_seen_behind_whatever(text: str) -> None:
    if text.count("{") == text.count("}") and text.count('"') % 2 == 0:
        assert not permits(text + "\nflush ruleset")


@pytest.mark.netns
@given(st.text(alphabet='{};\n" ', max_size=12), st.sampled_from(["", "table inet oegw {}"]))
def test_nft_reads_the_structure_as_we_do(between: str, first: str) -> None:
    """What we permit does nothing to a table of others, whatever libnftables makes of it."""
    command = f"{first}{between}delete table inet other"
    if not permits(command):
        return
    with own_network():
        handle = NftHandle()
        try:
            assert not handle.speak("add table inet other", 0, dry=False).failed
            handle.speak(command, 0, dry=False)
            assert "inet other" in handle.speak("list tables", 0, dry=False).output
        finally:
            handle.close()


def test_who_may_read_one_table_reads_no_other() -> None:
    socks = NftPermit(frozenset(), frozenset((("inet", "oegw"),)))
    assert permits("list set inet oegw encrypted_mark", socks)
    for command in ("list ruleset", "list set inet fw4 lan", "add table inet oegw", "list tables"):
        assert not permits(command, socks)


def message(table: str, *, kind: int | None = None) -> NfMessage:
    made = wire.new_element(table, "m", b"key", 1.0)
    return NfMessage(made.kind if kind is None else kind, made.flags, made.body)


def test_messages_of_other_tables_and_other_kinds_are_refused() -> None:
    rule = wire.new_rule("oegw", "c", [])
    PERMIT.check_messages((message("oegw"), NfMessage(rule.kind, rule.flags, rule.body)))
    two = message("oegw").body + wire.new_element("filter", "m", b"key", 1.0).body
    for wrong in (
        message("filter"), message("oegw", kind=2), message("oegw", kind=26),
        NfMessage(12, 0, two), NfMessage(12, 0, b""), NfMessage(12, 0, message("oegw").body[:-3]),
        NfMessage(12, 0, b"\0\0\1\0"),
    ):  # fmt: skip
        with pytest.raises(NotPermittedError):
            PERMIT.check_messages((wrong,))


COMMENTS, QUEUES = frozenset(("oegw-oegw",)), frozenset((4500,))
RULE = trap_rules(SETTINGS)[0].words("oegw-oegw")


def test_our_iptables_rules_and_no_others() -> None:
    check_iptables(Iptables("iptables", "mangle", "-S", ()), COMMENTS, QUEUES)
    check_iptables(Iptables("iptables", "mangle", "-A", RULE), COMMENTS, QUEUES)
    old = QueueRule("mangle", "OUTPUT", 1, 3, 4600).words("oegw-oegw")  # of an earlier run
    check_iptables(Iptables("ip6tables", "raw", "-D", old), COMMENTS, QUEUES)
    accept = tuple("ACCEPT" if word == "NFQUEUE" else word for word in RULE)
    for wrong in (
        Iptables("sh", "mangle", "-S", ()),
        Iptables("iptables", "filter", "-S", ()),
        Iptables("iptables", "mangle", "-F", ()),
        Iptables("iptables", "mangle", "-S", ("PREROUTING",)),
        Iptables("iptables", "mangle", "-A", old),
        Iptables("iptables", "mangle", "-A", accept),
        Iptables("iptables", "mangle", "-A", (*RULE, "--modprobe", "/bin/sh")),
        Iptables("iptables", "mangle", "-A", (*RULE, "-t", "filter")),
        Iptables("iptables", "mangle", "-A", (*RULE, "-m", "a/../../../tmp/theirs")),
        Iptables("iptables", "mangle", "-D", ("PREROUTING", "-j", "NFQUEUE")),
        Iptables("iptables", "mangle", "-A", ("-j", *RULE)),
        Iptables("iptables", "mangle", "-D", ()),
    ):
        with pytest.raises(NotPermittedError):
            check_iptables(wrong, COMMENTS, QUEUES)


def test_the_comment_is_that_of_the_jump() -> None:
    assert Jump("oegw", trap_rules(SETTINGS))._comment in COMMENTS

"""``[sst]``, and what rules say of port encryption."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from oegw.sst.settings import (
    Epochs,
    Fragments,
    Ipv4Signal,
    LanFlag,
    Request,
    SstSettings,
    Strangers,
)
from policy.rule import Sst, SstStrength
from tests.support.configurations import PEER_KEY, parsed, problems

HEAD = "version = 1\n"
FULL = """\
[sst]
enabled = true
private_key = "keys/sst.key"
old_keys = ["keys/older.key"]
algorithms = ["aes256"]
epochs = "off"
ipv4_signal = "dscp"
dscp = 11
restored_dscp = 1
request_dscp = 5
requests = ["dscp"]
lan_flag = "request"
strangers = "pass"
fragments = "try"
flows = 100
flow_lifespan = 30
hold_packets = 9
patience = 0.5
probe_interval = 5
forwarder = "[::1]:5300"
mark_mask = 0xFC0
queue = 20
"""
CONFIGURED = (
    'category = "configured"\nsource = "192.1.0.0/24"\ndestination = "192.2.0.0/24"\n'
    f'peer = "192.1.1.5"\npeer_key = "{PEER_KEY}"\n'
)


def test_every_key_arrives() -> None:
    assert parsed(HEAD + FULL, Path("/etc/oegw")).sst == SstSettings(
        True,
        Path("/etc/oegw/keys/sst.key"),
        (Path("/etc/oegw/keys/older.key"),),
        ("aes256",),
        Epochs.OFF,
        Ipv4Signal.DSCP,
        11,
        1,
        5,
        (Request.DSCP,),
        LanFlag.REQUEST,
        Strangers.PASS,
        Fragments.TRY,
        100,
        30.0,
        9,
        0.5,
        5.0,
        (ip_address("::1"), 5300),
        0xFC0,
        20,
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mark_mask = 0x300000", "sst.mark_mask: 0x300000 is not exactly 6 neighbouring bits"),
        ("mark_mask = 0xFC000", "sst.mark_mask: has bits of intercept.mark_mask"),
        ("queue = 4499", "sst.queue: 4499 and 4500 are ours, and intercept.queue is 4500"),
        ("restored_dscp = 3", "sst.restored_dscp: 3 is dscp"),
        ("request_dscp = 3", "sst.request_dscp: 3 is dscp"),
        ("dscp = 0", "sst.dscp"),
        ('algorithms = ["des"]', "sst.algorithms[1]: 'des' is not one of aes128, aes256"),
        ('requests = ["mail"]', "sst.requests[1]: 'mail' is not one of socket, dscp"),
        ('forwarder = "localhost"', "sst.forwarder: 'localhost' is not an address"),
        ('forwarder = "[::1"', "sst.forwarder: '[::1' is not an address"),
        ('forwarder = "::1]:53"', "sst.forwarder: '::1]:53' is not an address"),
        ('forwarder = "[127.0.0.1]:53"', "sst.forwarder: '[127.0.0.1]:53' is not an address"),
        ('forwarder = "127.0.0.1: 53"', "sst.forwarder: '127.0.0.1: 53' is not an address"),
        ('forwarder = "127.0.0.1:5_3"', "sst.forwarder: '127.0.0.1:5_3' is not an address"),
        (
            'forwarder = "::1"\n[dns]\nresolvers = ["::1"]',
            "sst.forwarder: ::1 is one of dns.resolvers: questions would go in a circle",
        ),
        ('forwarder = "127.0.0.1:0"', "sst.forwarder: a port is within 1 to 65535"),
        (
            'forwarder = "192.1.0.1"\n[dns]\nresolvers = ["192.1.0.1"]',
            "sst.forwarder: 192.1.0.1 is one of dns.resolvers: questions would",
        ),
        ('forwarder = "0.0.0.0"', "sst.forwarder: 0.0.0.0 is no address to listen on"),
        ('fragments = "keep"', "sst.fragments"),
        ("flow = 1", "sst.flow: "),
    ],
)
def test_what_is_wrong_is_named(line: str, words: str) -> None:
    [problem] = problems(f"{HEAD}[sst]\n{line}\n")
    assert problem.replace('"', "'").startswith(words)


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("::1", ("::1", 53)),
        ("[::1]", ("::1", 53)),
        ("[::1]:5300", ("::1", 5300)),
        ("127.0.0.1", ("127.0.0.1", 53)),
        ("127.0.0.1:5300", ("127.0.0.1", 5300)),
    ],
)
def test_where_the_forwarder_listens(word: str, place: tuple[str, int]) -> None:
    settings = parsed(f'{HEAD}[sst]\nforwarder = "{word}"\n')
    assert settings.sst.forwarder == (ip_address(place[0]), place[1])


def test_nobody_may_ask_where_the_list_is_empty() -> None:
    assert parsed(f"{HEAD}[sst]\nrequests = []\n").sst.requests == ()


@pytest.mark.parametrize(
    ("rule", "sst", "words"),
    [
        (CONFIGURED, "only", "a configured rule promises more"),
        ('category = "opportunistic"\non_failure = "drop"\n', "only", "promises more"),
        ('category = "deny"\n', "only", "what is denied has no ports"),
        ('category = "permit"\n', "inner", "needs a tunnel"),
        ('category = "permit"\n', "outer", "needs a tunnel"),
        (
            'category = "opportunistic"\nprotocol = "tcp"\ndestination_ports = 22\n',
            "inner",
            "ports",
        ),
    ],
)
def test_what_can_not_work_is_a_load_error(rule: str, sst: str, words: str) -> None:
    [problem] = problems(f'{HEAD}[[rule]]\nname = "r"\n{rule}sst = "{sst}"\n')
    assert problem.startswith("rule[1].sst: ")
    assert words in problem


def test_a_default_is_held_to_the_same() -> None:
    [problem] = problems(f'{HEAD}[default]\non_failure = "drop"\nsst = "only"\n')
    assert problem.startswith("default.sst: ")


@pytest.mark.parametrize(
    ("rule", "sst"),
    [
        (CONFIGURED, "inner"),
        (CONFIGURED, "outer"),
        ('category = "opportunistic"\n', "only"),
        ('category = "opportunistic"\non_failure = "drop"\n', "inner"),
        ('category = "permit"\nprotocol = "tcp"\ndestination_ports = 22\n', "only"),
        ('category = "permit"\n', "off"),
    ],
)
def test_what_works_arrives(rule: str, sst: str) -> None:
    text = f'{HEAD}[[rule]]\nname = "r"\n{rule}sst = "{sst}"\nsst_strength = "required"\n'
    [read] = parsed(text).rules
    assert (read.sst, read.sst_strength) == (Sst(sst), SstStrength.REQUIRED)


def test_it_runs_where_something_needs_it() -> None:
    assert not parsed(HEAD).encrypts_ports
    assert parsed(HEAD + '[sst]\nprivate_key = "sst.key"\n').encrypts_ports
    assert not parsed(HEAD + '[sst]\nprivate_key = "sst.key"\nenabled = false\n').encrypts_ports
    assert parsed(HEAD + '[default]\nsst = "inner"\n').encrypts_ports


@pytest.mark.parametrize(
    ("sst", "strength", "protected"),
    [
        (Sst.INNER, SstStrength.REQUIRED, True),
        (Sst.OUTER, SstStrength.REQUIRED, True),
        (Sst.ONLY, SstStrength.REQUIRED, False),
        (Sst.INNER, SstStrength.OPPORTUNISTIC, False),
    ],
)
def test_required_in_a_tunnel_means_nothing_without_one(
    sst: Sst, strength: SstStrength, protected: bool
) -> None:
    text = f'{HEAD}[default]\nsst = "{sst.value}"\nsst_strength = "{strength.value}"\n'
    assert parsed(text).default.protected is protected


@pytest.mark.parametrize(
    "rule",
    [
        '[[rule]]\nname = "r"\ncategory = "permit"\nsst = "only"\n',
        '[[rule]]\nname = "r"\ncategory = "opportunistic"\nsst = "inner"\n',
    ],
)
def test_what_is_required_can_not_be_switched_off(rule: str) -> None:
    text = f"{HEAD}[sst]\nenabled = false\n{rule}"
    assert not problems(text)
    [problem] = problems(f'{text}sst_strength = "required"\n')
    assert problem == "sst.enabled: rule 'r' requires port encryption"
    assert not problems(f'{HEAD}{rule}sst_strength = "required"\n')


def test_what_must_not_be_taken_over_without_a_restart() -> None:
    """By a gateway in which port encryption does not run: the traffic would leave as it is."""
    only = '[[rule]]\nname = "r"\ncategory = "permit"\nsst = "only"\n'
    inner = '[[rule]]\nname = "r"\ncategory = "opportunistic"\nsst = "inner"\n'
    required = 'sst_strength = "required"\n'
    found = parsed(HEAD + only + required).seals_or_drops
    assert found is not None
    assert found.name == "r"
    for rule in ("", only, inner, inner + required, f"[default]\n{required}"):
        assert parsed(HEAD + rule).seals_or_drops is None
    default = parsed(f'{HEAD}[default]\nsst = "only"\n{required}').seals_or_drops
    assert default is not None

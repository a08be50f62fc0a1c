"""What is told of a SOCKS server that is configured and does not do what its words say."""

from __future__ import annotations

from pathlib import Path

import pytest

from oegw import cli, config
from oegw.exitcodes import FINE
from oegw.socksadvice import socks_advice
from tests.oegw.test_configsocks import HASH

USER = f'[[socks.user]]\nname = "alice"\npassword = "{HASH}"\n'
ASKING = '[[socks.listener]]\naddress = "192.168.1.1"\nauthentication = "password"\n'
INSIDE = ASKING + 'interface = "eth0"\n'
NEVER = '[default]\ncategory = "permit"\n'


def said(text: str) -> list[str]:
    return list(socks_advice(config.parse(f"version = 1\n{text}", Path("oegw.toml"))))


@pytest.mark.parametrize(
    "text",
    [
        "",
        NEVER,
        "[socks]\n",
        NEVER + "[socks]\n",
        INSIDE + USER + '[[socks.rule]]\nallow = true\nusers = "alice"\n',
        "[[socks.rule]]\nallow = true\nencrypted = true\nports = 80\n"
        "[[socks.rule]]\nallow = false\n",
        '[[socks.listener]]\naddress = "::1"\nauthentication = "password"\n' + USER,
    ],
)
def test_nothing_is_said_of_what_works(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            NEVER + "[[socks.rule]]\nallow = true\nencrypted = true\n",
            "[socks]: what must be encrypted is always refused: no rule of the policy has tunnels",
        ),
        (USER, "socks.user: no listener asks for passwords, so nobody is a user"),
        (
            '[gateway]\naddresses = "192.1.1.4"\n[publish]\nclients = "192.1.0.65"\n[socks]\n',
            "publish.clients: 192.1.1.4 is not among them, so peers may find nobody who speaks",
        ),
        (
            ASKING + USER,
            "socks.listener[1]: 192.168.1.1 may be reached from outside, and passwords cross",
        ),
        (
            "[[socks.rule]]\nallow = true\n[[socks.rule]]\nallow = false\nports = 25\n",
            "socks.rule[2] applies to nothing: socks.rule[1] before it is for all",
        ),
    ],
)
def test_what_does_not_do_what_it_says(text: str, words: str) -> None:
    [sentence] = said(text)
    assert sentence.startswith(words)


def test_rules_for_users_that_nobody_is() -> None:
    text = USER + '[[socks.rule]]\nallow = true\nusers = "alice"\n'
    assert said(text)[1] == "socks.rule[1] applies to nothing: no listener asks for passwords"


def test_check_says_where_it_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "oegw.toml"
    head = 'version = 1\n[gateway]\naddresses = "192.0.2.1"\n[dns]\nresolvers = "127.0.0.1"\n'
    path.write_text(head + '[[socks.listener]]\naddress = "127.0.0.1"\nport = 1081\n' + USER)
    assert cli.main(["check", "--config", str(path)]) == FINE
    said = capsys.readouterr()
    assert "SOCKS: 127.0.0.1 port 1081" in said.out
    assert "note: socks.user: no listener asks" in said.err
    path.write_text(head + '[[socks.listener]]\naddress = "192.0.2.9"\n')
    assert cli.main(["check", "--config", str(path)]) == FINE
    words = "warning: socks.listener[1].address: 192.0.2.9 is neither loopback nor"
    assert words in capsys.readouterr().err

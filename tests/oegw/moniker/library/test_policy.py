"""What applications of this host may ask for (MK-17): from its daemon, or its configuration."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from oegw.moniker.library.errors import PolicyUnreadable, ServiceDenied
from oegw.moniker.library.policy import DEFAULT_CONFIG, parsed, policy_of_this_host
from oegw.moniker.settings import ClientSettings, ServiceRule
from oegw.settings import DEFAULT_CONFIG as USUAL

HERE = "127.0.0.1"
RULES = (
    ServiceRule(True, "star*", "-", (), (ip_network("127.0.0.0/8"),), False, "rule[1]"),
    ServiceRule(False, origin="rule[2]"),
)

CONFIGURATION = """
version = 1
[moniker]
[moniker.client]
encrypt = "never"
[[moniker.client.rule]]
allow = false
service = "telnet"
"""


def test_the_daemon_says_it(host: Any) -> None:
    assert policy_of_this_host(host.daemon) == ClientSettings()
    host.stop()
    host.start(client=ClientSettings(RULES, "require"))
    assert policy_of_this_host(host.daemon) == ClientSettings(RULES, "require")


def test_an_application_is_held_to_it(host: Any) -> None:
    host.stop()
    host.start(client=ClientSettings(RULES, "prefer"))
    with host.serve("starwars"), host.serve("telnet"):
        host.connect(HERE, "starwars").close()
        with pytest.raises(ServiceDenied, match="policy of this host refuses it"):
            host.connect(HERE, "telnet")
        with pytest.raises(ServiceDenied):
            host.resolve("::1", "starwars")


def test_without_a_daemon_the_configuration_says_it(tmp_path: Path) -> None:
    path = tmp_path / "oegw.toml"
    assert policy_of_this_host(tmp_path / "none", path) == ClientSettings()
    path.write_text(CONFIGURATION)
    for _ in range(2):
        policy = policy_of_this_host(tmp_path / "none", path)
        assert policy.encrypt == "never"
        assert [(rule.allow, rule.service) for rule in policy.rules] == [(False, "telnet")]
    path.write_text(CONFIGURATION.replace("telnet", "rlogin"))
    assert policy_of_this_host(tmp_path / "none", path).rules[0].service == "rlogin"


def test_what_can_not_be_read_may_forbid(tmp_path: Path) -> None:
    path = tmp_path / "oegw.toml"
    path.write_text('[moniker.client]\nencrypt = "maybe"\n')
    with pytest.raises(PolicyUnreadable, match="encrypt"):
        policy_of_this_host(tmp_path / "none", path)


def test_the_usual_configuration_is_the_gateways() -> None:
    assert DEFAULT_CONFIG == USUAL


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"encrypt": "maybe", "rules": []},
        {"encrypt": "never", "rules": None},
        {"encrypt": "never", "rules": [1]},
        {"encrypt": "never", "rules": [{}]},
        {"encrypt": "never", "rules": [{"allow": 1}]},
        {"encrypt": "never", "rules": [{"allow": True, "hosts": ["x"]}]},
        {"encrypt": "never", "rules": [{"allow": True, "clients": 5}]},
    ],
)
def test_a_daemon_that_says_something_else(answer: dict[str, Any]) -> None:
    with pytest.raises(PolicyUnreadable, match="policy of this host can't be read"):
        parsed(answer)

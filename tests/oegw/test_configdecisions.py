"""``[[decision_point]]`` and what rules say about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import oegw
from oegw import config
from oegw.config import ConfigError
from oegw.decision import DecisionPoint, OnTimeout

PATH = Path("/etc/oegw/oegw.toml")
GOOD = 'name = "office"\nurl = "https://policy.example:8443/decide"\n'


def parse(*points: str) -> tuple[DecisionPoint, ...]:
    text = "version = 1\n" + "".join(f"[[decision_point]]\n{point}\n" for point in points)
    return config.parse(text, PATH).decision_points


def test_defaults_and_everything() -> None:
    url = "https://policy.example:8443/decide"
    assert parse(GOOD) == (DecisionPoint("office", url),)
    more = 'timeout = 0.5\non_timeout = "deny"\nlongest_ttl = 60\nca = "ca.pem"'
    [point] = parse(GOOD + more)
    assert point == DecisionPoint("office", url, 0.5, OnTimeout.DENY, 60.0, PATH.parent / "ca.pem")


def test_order_of_the_file_is_kept() -> None:
    names = ["b", "a", "c"]
    points = parse(*(f'name = "{name}"\nurl = "http://192.1.1.53/"' for name in names))
    assert [point.name for point in points] == names


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ('url = "http://a/"', r"decision_point\[1\]\.name: is missing"),
        ('name = "a"', r"decision_point\[1\]\.url: is missing"),
        ('name = "a b"\nurl = "http://a/"', r"\.name: is not 1 to 64"),
        ('name = "a"\nurl = "ftp://a/"', r"\.url: .* does not begin with http"),
        ('name = "a"\nurl = "http://"', r"\.url: "),
        ('name = "a"\nurl = "http://a:99999/"', r"\.url: "),
        ('name = "a"\nurl = "http://me:secret@a/"', r"\.url: has a name or password"),
        ('name = "a"\nurl = "http://a/\\u0007"', r"\.url: "),
        ('name = "a"\nurl = "http://a/"\nca = "x"', r"\.ca: is for https only"),
        (GOOD + "timeout = 0", r"\.timeout: "),
        (GOOD + 'on_timeout = "permit"', r"\.on_timeout: "),
        (GOOD + "longest_ttl = 0", r"\.longest_ttl: "),
        (GOOD + "colour = 1", r"decision_point\[1\]\.colour: "),
    ],
)
def test_faults_name_the_key(written: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        parse(written)
    assert "secret" not in str(error.value)


def test_names_are_unique_and_points_few() -> None:
    with pytest.raises(ConfigError, match=r"decision_point\[2\]\.name: there is another"):
        parse(GOOD, GOOD)
    with pytest.raises(ConfigError, match="more than 8"):
        parse(*(f'name = "p{n}"\nurl = "http://a/"' for n in range(9)))


def test_relax_is_for_opportunistic_rules() -> None:
    rule = '[[rule]]\nname = "r"\ncategory = "{}"\nrelax = true\n'
    [read] = config.parse("version = 1\n" + rule.format("opportunistic"), PATH).rules
    assert read.relax
    with pytest.raises(ConfigError, match=r"rule\[1\]\.relax: is for category opportunistic only"):
        config.parse("version = 1\n" + rule.format("deny"), PATH)


def test_every_key_is_in_the_reference() -> None:
    reference = (Path(oegw.__file__).parent / "docs/configuration.md").read_text()
    section = reference.partition("## `[[decision_point]]`")[2]
    for each in dataclasses.fields(DecisionPoint):
        assert f"| `{each.name}` |" in section

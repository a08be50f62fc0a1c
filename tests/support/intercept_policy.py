"""Policies for tests of interception."""

from __future__ import annotations

from ipaddress import ip_network

from policy.builtin import builtin_rules
from policy.rule import Category, OnFailure, Rule
from policy.table import PolicyTable

ATTACHED = ("10.1.0.0/24", "10.2.0.0/24", "fd00:1::/64", "fd00:2::/64")


def policy(*rules: Rule, default: Rule | None = None) -> PolicyTable:
    """These rules, the built-in ones for the test hosts, and opportunistic for the rest."""
    builtin = builtin_rules([ip_network(text) for text in ATTACHED])
    return PolicyTable((*builtin, *rules), default or Rule("rest", Category.OPPORTUNISTIC))


def configured_rule(destination: str, **more: object) -> Rule:
    return Rule("configured", Category.CONFIGURED, None, (ip_network(destination),), **more)


def protected_rule(destination: str, **more: object) -> Rule:
    return Rule(
        "protected",
        Category.OPPORTUNISTIC,
        None,
        (ip_network(destination),),
        on_failure=OnFailure.DROP,
        **more,
    )

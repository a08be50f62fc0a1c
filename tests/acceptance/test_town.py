"""The town itself: it can do what the gateway wants done."""

from __future__ import annotations

from oegw.commands import Command
from tests.support.town import House


def test_a_house_carries_out_every_command() -> None:
    wanted = {f"_do_{command.__name__}" for command in Command.__subclasses__()}
    assert wanted - set(vars(House)) == set()

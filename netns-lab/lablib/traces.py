"""Events of a gateway's trace, found by patterns such as ``tunnel.keyed source=@alice``."""

from __future__ import annotations

import fnmatch
from typing import Any

from lablib.errors import LabError
from lablib.lab import Lab

Event = dict[str, Any]


def told_by(lab: Lab, name: str) -> list[Event]:
    """The trace of a gateway, or of a host's daemon for services by name."""
    teller = lab.gateways.get(name) or lab.monikers.get(name)
    if teller is None:
        raise LabError(f"{name} is neither a gateway nor a daemon of this scenario")
    return teller.events()


def plain(value: Any) -> str:
    """A field of a trace or a status as text; a prefix of one address is the address."""
    text = str(value).lower() if not isinstance(value, str) else value
    return text.removesuffix("/32").removesuffix("/128")


def meant(lab: Lab, text: str) -> str:
    """``@alice`` is Alice's address; other words stand for themselves."""
    return str(lab.address(text[1:])) if text.startswith("@") else text


def matches(lab: Lab, event: Event, pattern: str) -> bool:
    """Whether an event is as ``category.event key=value ...`` says (``*`` is any text)."""
    name, *conditions = pattern.split()
    if f"{event.get('category')}.{event.get('event')}" != name:
        return False
    for condition in conditions:
        key, _, wanted = condition.partition("=")
        if not fnmatch.fnmatchcase(plain(event.get(key)), meant(lab, wanted)):
            return False
    return True

"""An attack, what keeps it off, and what happens without that.

Each attack is a function that attacks real code and asserts that nothing came of it.  Beside it
stands `without`: it takes the defence out, in the one place where it is (or in all of them, where
there are several).  The same function must then fail, by one of its own assertions: so it is
known to see what it is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

Perform = Callable[[], None]
TakeOut = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Attack:
    """``row``: of the design page's table, "measured", `SST`, `MONIKER` or `SOCKS`.

    ``defence``: files and symbols, "ike/signer.py verifying_key"; ``otherwise``: what happens
    without them.
    """

    row: int | str
    name: str
    what: str
    source: str
    defence: tuple[str, ...]
    otherwise: str
    perform: Perform
    without: TakeOut
    test: str  # where the attack is written, "tests/attacks/keying.py name"
    marks: tuple[str, ...] = ()  # of pytest, for what needs more than Python


ATTACKS: list[Attack] = []
SST = "sst"
"""The row of attacks on port encryption, which the page numbers itself."""
MONIKER = "moniker"
"""The same of attacks on services by name."""
SOCKS = "socks"
"""The same of attacks on the SOCKS server."""


def attack(
    row: int | str,
    what: str,
    *,
    source: str,
    defence: str | tuple[str, ...],
    otherwise: str,
    without: TakeOut,
    marks: tuple[str, ...] = (),
) -> Callable[[Perform], Perform]:
    """Enter the function below into the table."""

    def enter(perform: Perform) -> Perform:
        code = perform.__code__
        path = code.co_filename[code.co_filename.index("tests/") :]
        defences = (defence,) if isinstance(defence, str) else defence
        entry = Attack(
            row, perform.__name__, what, source, defences, otherwise, perform, without,
            f"{path} {perform.__name__}", marks,
        )  # fmt: skip
        ATTACKS.append(entry)
        return perform

    return enter


def replaced(*changes: tuple[str, Any]) -> TakeOut:
    """A defence taken out by putting something else in the place of these names."""

    def take_out(monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in changes:
            monkeypatch.setattr(name, value)

    return take_out


@contextmanager
def survived() -> Iterator[None]:
    """Strangers' input must not raise out of the core: what does has killed the daemon."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"raised out of the core: {error!r}") from error

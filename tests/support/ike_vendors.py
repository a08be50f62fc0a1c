"""What the peers of a test can do, whatever messages 1 and 2 have said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ike.v1.session import Session
from ike.v1.vendor import Vendor


def set_vendors(monkeypatch: pytest.MonkeyPatch, *vendors: Vendor) -> None:
    """Every channel comes up with exactly these, at both ends."""
    opened = Session.opened

    def opened_with_vendors(self, now, end) -> None:
        opened(self, now, replace(end, vendors=frozenset(vendors)))

    monkeypatch.setattr(Session, "opened", opened_with_vendors)

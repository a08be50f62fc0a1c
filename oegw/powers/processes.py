"""What /proc says of our processes: who they are and what they may do."""

from __future__ import annotations

import pwd
from collections.abc import Iterator, Mapping

from oegw.powers.dropping import Cap, of_bits, status_of
from oegw.powers.orders import ProcessRow

_NAMES = {each.value: each.name.lower() for each in Cap}


def rows(processes: Mapping[str, int]) -> Iterator[ProcessRow]:
    """Of those that are there yet, by name."""
    for name, pid in processes.items():
        try:
            facts = status_of(pid)
            uid = int(facts["Uid"].split()[1])
            held = sorted(of_bits(int(facts["CapPrm"], 16)))
            yield ProcessRow(
                name,
                pid,
                _user(uid),
                tuple(_NAMES.get(number, f"capability {number}") for number in held),
                facts.get("Seccomp", "0") == "2",
                facts.get("NoNewPrivs", "0") == "1",
            )
        except (OSError, ValueError, KeyError, IndexError):
            continue  # it ended meanwhile


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

"""The names of hosts(5): asked before the DNS, as programs of this box do."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from policy.flow import IPAddress

# Our choices.
MAX_OCTETS = 1 << 20
MAX_ADDRESSES = 16  # of one name


class HostsFile:
    """Read again when it has changed.  What can't be read says nothing."""

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._addresses: dict[str, tuple[IPAddress, ...]] = {}
        self._names: dict[IPAddress, str] = {}

    def addresses_of(self, name: str) -> tuple[IPAddress, ...]:
        """In the order of the file; none if the name is not there."""
        self._look()
        return self._addresses.get(name.lower(), ())

    def name_of(self, address: IPAddress) -> str | None:
        """The canonical name, which is the first of its line."""
        self._look()
        return self._names.get(address)

    def _look(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            with self._path.open("rb") as file:
                text = file.read(MAX_OCTETS).decode("utf-8", "replace")
        except OSError:
            stamp, text = None, ""
        self._stamp = stamp
        found: dict[str, dict[IPAddress, None]] = {}
        self._names = {}
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            try:
                address = ip_address(words[0]) if len(words) > 1 else None
            except ValueError:
                continue
            if address is None or getattr(address, "scope_id", None) is not None:
                continue
            self._names.setdefault(address, words[1].lower())
            for name in words[1:]:
                found.setdefault(name.lower(), {})[address] = None
        self._addresses = {name: tuple(each)[:MAX_ADDRESSES] for name, each in found.items()}

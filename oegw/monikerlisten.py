"""Where a server that we started listens, as the kernel has it in /proc.

Only sockets of its own processes count: others may have taken the port meanwhile.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from oegw.moniker.daemon.processes import copied

# Specification: proc(5) and the kernel's states.
_LISTENING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; of UDP TCP_CLOSE, which is "not connected"
_LOCAL, _STATE, _INODE = 1, 3, 9  # columns

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket, and a descriptor of it in one process."""

    pid: int
    descriptor: int
    inode: int

    def there(self) -> bool:
        """Whether that process has it still, by that descriptor."""
        return _inode_of(self.pid, str(self.descriptor)) == self.inode

    def copied(self) -> socket.socket:
        """The same socket in this process.  Raises OSError."""
        return copied(self.pid, self.descriptor)


def listeners(port: int, transport: str, pid: int) -> list[Listener]:
    """The sockets of descendants of ``pid`` that listen on ``port``."""
    inodes = set(_inodes(port, transport))
    if not inodes:
        return []
    found: dict[int, Listener] = {}
    for each in descendants(pid):
        with suppress(OSError):
            for path in (PROC / str(each) / "fd").iterdir():
                inode = _inode_of(each, descriptor := path.name)
                if inode in inodes:
                    found.setdefault(inode, Listener(each, int(descriptor), inode))
    return list(found.values())


def descendants(pid: int) -> Iterator[int]:
    """All that descend from ``pid``."""
    children: dict[int, list[int]] = {}
    for name in (path.name for path in PROC.iterdir()):
        if name.isdecimal() and (parent := _parent_of(name)) is not None:
            children.setdefault(parent, []).append(int(name))
    todo = children.get(pid, [])
    while todo:
        each = todo.pop()
        yield each
        todo += children.get(each, ())


def _parent_of(pid: str) -> int | None:
    with suppress(OSError, IndexError, ValueError):
        text = (PROC / pid / "stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[1])  # the name before it may have blanks
    return None


def _inodes(port: int, transport: str) -> Iterator[int]:
    wanted = f":{port:04X}"
    for rows in _tables(transport):
        for row in rows:
            fields = row.split(None, _INODE + 1)
            if fields[_LOCAL].endswith(wanted) and fields[_STATE] == _LISTENING[transport]:
                yield int(fields[_INODE])


def _tables(transport: str) -> Iterable[list[str]]:
    for name in (transport, f"{transport}6"):
        with suppress(OSError):  # a kernel without that family
            text = (PROC / "self" / "net" / name).read_text(encoding="ascii")
            yield text.splitlines()[1:]


def _inode_of(pid: int, descriptor: str) -> int | None:
    with suppress(OSError, ValueError):
        text = str((PROC / str(pid) / "fd" / descriptor).readlink())
        if text.startswith("socket:["):
            return int(text[8:-1])
    return None

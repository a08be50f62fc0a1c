"""What a worker is given at its start, START's body: descriptors as numbers, which it inherited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oegw.datapath.userspace.engine import DontFragment
from oegw.datapath.userspace.outside import Handle
from oegw.powers.dropping import User


@dataclass(frozen=True, slots=True)
class Equipment:
    """``memory`` is that of the SAs' records (``state.Memory``), ``shared`` whether other workers
    use the same ones; ``counters`` that of all workers' counters, of which ``page`` is this one's.

    ``device``: its queue of the tunnel device; ``virtio``, ``uso`` as `tun.Tun` says them.
    ``outer``: the sockets towards the Internet, to send through or to receive from.
    ``mtu``: of the device, and of paths that cannot be measured; ``mark``: the gateway's own.
    ``core``: as ``UserspaceSettings`` says it.
    ``index``: the number of this worker in its direction.  Of an opening one, ``strays`` is where
    what is not for it goes, and ``stray`` where others send what is (`strays.py`).
    ``user``: whom it becomes; an argument of its process, not of START.
    """

    core: str
    memory: int
    shared: bool
    counters: int
    page: int
    device: int
    virtio: bool
    uso: bool
    outer: tuple[Handle, ...]
    mtu: int
    mark: int
    dont_fragment: DontFragment
    index: int = 0
    strays: tuple[int, ...] = ()
    stray: int = -1
    user: User | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (
            self.memory,
            self.counters,
            self.device,
            *(handle.descriptor for handle in self.outer),
            *self.strays,
            *((self.stray,) if self.stray >= 0 else ()),
        )

    def body(self) -> list[Any]:
        return [
            self.core,
            [self.memory, self.shared],
            [self.counters, self.page],
            [self.device, self.virtio, self.uso],
            [list(handle) for handle in self.outer],
            [self.mtu, self.mark, self.dont_fragment.value],
            [self.index, list(self.strays), self.stray],
        ]

    @classmethod
    def of(cls, body: list[Any]) -> Equipment:
        """Raises ValueError, TypeError: this is not what ``body`` gave."""
        core, (memory, shared), (counters, page), (device, virtio, uso), outer, *rest = body
        (mtu, mark, dont_fragment), (index, strays, stray) = rest
        return cls(
            core=core,
            memory=memory,
            shared=shared,
            counters=counters,
            page=page,
            device=device,
            virtio=virtio,
            uso=uso,
            outer=tuple(Handle(*handle) for handle in outer),
            mtu=mtu,
            mark=mark,
            dont_fragment=DontFragment(dont_fragment),
            index=index,
            strays=tuple(strays),
            stray=stray,
        )

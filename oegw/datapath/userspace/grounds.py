"""What workers stand on, and what outlives them: device, sockets, memory.  The control process
opens all of it, and keeps it; so a worker that dies loses no packet that waits in a queue."""

from __future__ import annotations

import os
import socket

from oegw.datapath.device import mend_device
from oegw.datapath.interface import DatapathError, Direction
from oegw.datapath.routes import TunnelRoutes
from oegw.datapath.userspace.counters import CounterPages
from oegw.datapath.userspace.equipment import Equipment
from oegw.datapath.userspace.offloads import RECEIVING, merged
from oegw.datapath.userspace.outside import OuterGroup
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.datapath.userspace.state import Memory
from oegw.datapath.userspace.strays import StrayPaths
from oegw.datapath.userspace.tun import Tun, open_tun
from oegw.intercept.interface import Marks


class Grounds:
    """Of ``workers`` workers for each direction.  Raises DatapathError, and leaves nothing open.

    ``versions``: of IP, that there are sockets of.  ``told``: of each offload its name, whether it
    is in use, and why not.
    """

    def __init__(self, settings: UserspaceSettings, workers: int) -> None:
        self._settings = settings
        self._workers = workers
        self._mark = Marks(settings.mark_mask).own
        self._routes = TunnelRoutes(settings)
        self._tun: Tun | None = None
        self._groups: list[OuterGroup] = []
        self._strays: StrayPaths | None = None
        self.versions = (4, 6) if _has_ipv6() else (4,)
        try:
            self.memory = Memory()
        except OSError as error:
            raise DatapathError(f"memory for SAs: {error.strerror}") from None
        try:
            self.counters = CounterPages(2 * workers)
        except OSError as error:
            os.close(self.memory.descriptor)
            raise DatapathError(f"memory for counters: {error.strerror}") from None
        self._open = True
        try:
            self._open_all()
        except BaseException:
            self.close()
            raise

    def _open_all(self) -> None:
        settings = self._settings
        self._tun = open_tun(
            settings.tunnel_interface, settings.mtu, self._workers, settings.offloads
        )
        ports: tuple[int | None, ...] = (None,)
        if settings.encapsulation_port is not None:
            ports = (None, settings.encapsulation_port)
        self._strays = StrayPaths(self._workers)
        for version in self.versions:
            for port in ports:
                group = OuterGroup(
                    version,
                    port,
                    self._mark,
                    self._workers,
                    settings.offloads,
                    settings.ports_change,
                )
                self._groups.append(group)
        told = merged(*self._tun.told, *(each for group in self._groups for each in group.told))
        self.told = tuple((each.name, each.on, each.reason) for each in told)

    def equipment(self, direction: Direction, index: int, core: str) -> Equipment:
        """That of one worker."""
        assert self._tun is not None
        outbound = direction is Direction.OUTBOUND
        strays = self._strays if not outbound else None
        groups = [group.sealing if outbound else group.opening for group in self._groups]
        return Equipment(
            core=core,
            memory=self.memory.descriptor,
            shared=outbound and self._workers > 1,
            counters=self.counters.descriptor,
            page=index if outbound else self._workers + index,
            device=self._tun.descriptors[index % len(self._tun.descriptors)],
            virtio=self._tun.virtio,
            uso=self._tun.uso,
            outer=tuple(sockets[index].handle for sockets in groups),
            mtu=self._settings.mtu,
            mark=self._mark,
            dont_fragment=self._settings.dont_fragment,
            index=index,
            strays=strays.beginnings if strays else (),
            stray=strays.ends[index] if strays else -1,
            user=self._settings.user,
        )

    @property
    def joined(self) -> bool:
        """Whether the kernel joins what comes for the port of ESP in UDP."""
        return any(name == RECEIVING and on for name, on, _ in self.told)

    @property
    def keying_strays(self) -> tuple[tuple[int, ...], int]:
        """Where what is not for the keying goes, and where workers send what is."""
        assert self._strays is not None
        return self._strays.beginnings, self._strays.ends[-1]

    def lead(self) -> None:
        """Marked packets go into the device, or nowhere.  Raises DatapathError."""
        self._routes.install()

    def mislead(self) -> None:
        """They do so no more.  Raises DatapathError."""
        self._routes.remove()

    def mend(self) -> tuple[str, ...]:
        """Put back what led packets into the device.  Returns what was gone.

        Raises DatapathError: without the device itself, for example.
        """
        settings = self._settings
        return (*mend_device(settings.tunnel_interface, settings.mtu), *self._routes.mend())

    def close(self) -> None:
        """The device goes once its workers have ended.  Routes stay."""
        if not self._open:
            return
        self._open = False
        if self._tun is not None:
            self._tun.close()
        for group in self._groups:
            group.close()
        if self._strays is not None:
            self._strays.close()
        self.counters.close()
        os.close(self.memory.descriptor)


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True

"""Which datapath runs: the kernel's where it has all that is needed, else our own."""

from __future__ import annotations

from oegw.datapath.interface import Datapath, DatapathError
from oegw.datapath.userspace.core.choice import COMPILED, what_is_missing
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.datapath.xfrm.datapath import XfrmDatapath
from oegw.datapath.xfrm.probe import probe
from oegw.datapath.xfrm.settings import XfrmSettings
from oegw.powers.dropping import User
from oegw.settings import DatapathSettings


class DatapathChoice:
    """``settings.datapath`` decides; ``"auto"`` asks the kernel.

    ``ports_change``: port encryption runs, which may take the ports of IKE and of ESP in UDP.
    ``user``: whom its worker processes become.  ``keying_elsewhere``: who asks reads IKE itself.
    """

    def __init__(
        self,
        settings: DatapathSettings,
        mark_mask: int,
        ports_change: bool = False,
        user: User | None = None,
        *,
        keying_elsewhere: bool = False,
    ) -> None:
        self._keying_elsewhere = keying_elsewhere
        self._user = user
        self._ports_change = ports_change
        self._settings = settings
        self._mark_mask = mark_mask

    async def make(self) -> Datapath:
        """The datapath, not started yet.  Raises DatapathError if the one asked for can't work."""
        wanted = self._settings.datapath
        kernel = XfrmSettings(
            tunnel_interface=self._settings.tunnel_interface,
            mark_mask=self._mark_mask,
            interface_id=self._settings.interface_id,
        )
        if wanted == "userspace":
            await XfrmDatapath(kernel).remove_leftovers()
            return self._userspace("the configuration says so")
        lacking = await probe(kernel)
        if lacking is None:
            chosen = wanted == "kernel"
            reason = "the configuration says so" if chosen else "the kernel has all that is needed"
            return XfrmDatapath(kernel, reason)
        if wanted == "kernel":
            raise DatapathError(f'datapath.datapath = "kernel": {lacking}')
        await XfrmDatapath(kernel).remove_leftovers()
        return self._userspace(lacking)

    def _userspace(self, reason: str) -> Datapath:
        settings = self._settings
        missing = what_is_missing() if settings.core == COMPILED else None
        if missing is not None:
            raise DatapathError(f'datapath.core = "compiled": {missing}')
        return UserspaceDatapath(
            UserspaceSettings(
                tunnel_interface=settings.tunnel_interface,
                mark_mask=self._mark_mask,
                core=settings.core,
                offloads=settings.offloads,
                workers=settings.workers,
                ports_change=self._ports_change,
                user=self._user,
                keying_elsewhere=self._keying_elsewhere,
            ),
            reason,
        )

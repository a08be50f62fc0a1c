"""The site with nothing made up: its hosts and its name server are Debian roots that boot, too.

Nothing is installed, but Debian's BIND on the name server.  What the readers of our pages bring
along is there: ssh from each root to each other, and the package, in /root of routers and hosts.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

from tests.deploy.machine import Machine
from tests.deploy.root import package
from tests.deploy.site import DNS, INTERNET, PLACES, Place, Q, Site, furnish

_ANYBODY = "Host *\n  StrictHostKeyChecking accept-new\n  BatchMode yes\n"


ENDS = ("dns", "alice", "bob")


class WholeSite(Site):
    """``machines``: a, b, dns, alice, bob."""

    _internet: ClassVar = (INTERNET, Q)
    _places: ClassVar[Mapping[str, Any]] = {**PLACES, **dict.fromkeys(ENDS)}
    _name_server: ClassVar = staticmethod(lambda *_, **__: nullcontext())

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        more = {"dns": ("bind9",)}
        self.machines |= {name: Machine(name, folder, *more.get(name, ())) for name in ENDS}
        self._ssh = folder / "ssh"

    def _furnish(self, machine: Machine, place: Place | None) -> None:
        if place is not None:
            super()._furnish(machine, place)
        elif machine.name == "dns":
            furnish(machine, {"out0": (DNS, INTERNET)})
        else:  # its link is set up from outside
            furnish(machine, {})
            waits = machine.root / "etc/systemd/system/systemd-networkd-wait-online.service"
            waits.symlink_to("/dev/null")
        self._let_in(machine)
        if machine.name != "dns":
            shutil.copy(package(), machine.root / "root")

    def _let_in(self, machine: Machine) -> None:
        """Root of each machine, by ssh, at every other."""
        if not self._ssh.exists():
            words = ("-q", "-t", "ed25519", "-N", "", "-f", str(self._ssh))
            subprocess.run(["ssh-keygen", *words], check=True)
        own, public = self._ssh.read_text(), self._ssh.with_suffix(".pub").read_text()
        for name, text in (("id_ed25519", own), ("authorized_keys", public), ("config", _ANYBODY)):
            machine.write(f"/root/.ssh/{name}", text)
            (machine.root / "root/.ssh" / name).chmod(0o600)

    def boot(self, *names: str, wait: bool = True) -> None:
        super().boot(*(names or self.machines), wait=wait)

    def _linked(self, name: str) -> str:
        if name in PLACES:
            return super()._linked(name)
        if name != "dns":
            return self._namespaces[name]
        inside, net = self._namespace(name), self._namespaces["net"]
        for words in (
            f"link add to-dns netns {net} type veth peer name out0 netns {inside}",
            f"-n {net} link set to-dns master br0 up",
        ):  # fmt: skip
            subprocess.run(["ip", *words.split()], check=True)
        return inside

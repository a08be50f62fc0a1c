"""Exported services by multicast DNS (RFC 6762), on the links of some interfaces.

python-zeroconf speaks it; it is installed with the extra ``mdns`` of this package.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from oegw.moniker.discovery.addresses import addresses_of
from oegw.moniker.discovery.naming import strings_of, type_of
from oegw.moniker.interface import Entry, IPAddress, Service
from oegw.moniker.names import MonikerError
from oegw.trace import Trace

# Our choices.
MAX_TOLD = 64  # services: each is announced and defended on the link
CLOSE_SECONDS = 3.0  # for goodbyes


class MulticastUnavailable(MonikerError):  # noqa: N818  (it names the fact)
    """python-zeroconf is not installed."""


class Multicast:
    """``host``: the name of this box on the link, without ``.local``."""

    def __init__(self, interfaces: Sequence[str], host: str, trace: Trace) -> None:
        """Raises MulticastUnavailable."""
        try:
            import zeroconf
            from zeroconf.asyncio import AsyncZeroconf
        except ImportError:
            raise MulticastUnavailable(
                "moniker.export.multicast: needs python-zeroconf: pip install 'oegw[mdns]'"
            ) from None
        self._library: Any = zeroconf
        self._open: Any = AsyncZeroconf
        self._interfaces = tuple(interfaces)
        self._host = host
        self._trace = trace
        self._speaker: Any = None
        self._addresses: tuple[IPAddress, ...] = ()
        self._told: dict[str, tuple[Service, Any]] = {}  # Any: the library's ServiceInfo
        self._refused: dict[str, Service] = {}

    async def tell(self, named: Mapping[str, Entry]) -> None:
        """From now on these are told, and no others.  Never raises for what can't be told."""
        addresses = tuple(
            dict.fromkeys(each for name in self._interfaces for each in addresses_of(name))
        )
        if addresses != self._addresses:
            await self.close()
            self._addresses = addresses
            if addresses and not await self._start():
                self._addresses = ()  # to be tried again
        if self._speaker is None:
            return
        wanted = {label: entry.service for label, entry in list(named.items())[:MAX_TOLD]}
        over = [label for label, (service, _) in self._told.items() if wanted.get(label) != service]
        infos = [self._told.pop(label)[1] for label in over]
        await self._settled(self._speaker.async_unregister_service(info) for info in infos)
        self._refused = {
            label: service
            for label, service in self._refused.items()
            if wanted.get(label) == service
        }
        fresh = [label for label in wanted if label not in self._told | self._refused]
        await asyncio.gather(*(self._announce(label, wanted[label]) for label in fresh))

    async def close(self) -> None:
        """Say goodbye.  Never raises."""
        speaker, self._speaker = self._speaker, None
        self._told, self._refused, self._addresses = {}, {}, ()
        if speaker is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await speaker.async_unregister_all_services()
                await speaker.async_close()
        except (TimeoutError, OSError) as error:
            self._trace.drop("moniker", "mdns_close", reason=str(error) or type(error).__name__)

    def snapshot(self) -> dict[str, Any]:
        """For ``oegw moniker status``."""
        answer: dict[str, Any] = {"mdns": ", ".join(self._interfaces), "announced": len(self._told)}
        if self._refused:
            answer["untellable"] = ", ".join(sorted(self._refused))
        return answer

    async def _start(self) -> bool:
        try:
            self._speaker = self._open(
                interfaces=[str(address) for address in self._addresses],
                ip_version=self._library.IPVersion.All,
            )
            await self._speaker.zeroconf.async_wait_for_start()
        except (OSError, self._library.Error) as error:
            self._trace.drop("moniker", "mdns_unavailable", reason=str(error))
            self._speaker = None
        return self._speaker is not None

    async def _announce(self, label: str, service: Service) -> None:
        """The library splits names at dots, so there is none in ours."""
        kind = ".".join((*type_of(service.service, service.transport), "local."))
        told = self._addresses if service.address is None else (service.address,)
        try:
            info = self._library.ServiceInfo(
                kind,
                f"{label.replace('.', '_')}.{kind}",
                port=service.port,
                weight=service.weight,
                properties=b"".join(bytes([len(each)]) + each for each in strings_of(service)),
                server=f"{self._host}.local.",
                parsed_addresses=[str(address) for address in told],
            )
            self._told[label] = service, info
            await self._speaker.async_register_service(info, strict=False)
        except (self._library.Error, OSError, ValueError) as error:
            self._told.pop(label, None)
            self._refused[label] = service
            reason = str(error) or type(error).__name__
            self._trace.drop("moniker", "mdns_untellable", instance=label, reason=reason)

    async def _settled(self, work: Any) -> None:
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, Exception):
                self._trace.drop("moniker", "mdns_goodbye", reason=str(result))

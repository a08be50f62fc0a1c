"""All servers at the same time, each in a network of its own, and what was heard of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.oegw.socks5.clients import servers
from tests.oegw.socks5.clients.bed import Bed, standing
from tests.oegw.socks5.differences.record import Heard, played, prepare


class Ground:
    """One server: in a network of its own, with all cases played once."""

    def __init__(self, server: str, directory: Path) -> None:
        self._stack = ExitStack()
        try:
            self._bed: Bed = self._stack.enter_context(standing(directory))
            self._stack.enter_context(getattr(servers, server)(self._bed))
            prepare(self._bed)
            self.heard: Heard = played(self._bed)
        except BaseException:
            self._stack.close()
            raise

    def again(self, case: str) -> list[str]:
        """One case alone, on a machine that may have been too busy for all at a time."""
        return played(self._bed, [case])[case]

    def close(self) -> None:
        self._stack.close()


@contextmanager
def grounds(names: list[str], directory: Path) -> Iterator[dict[str, Ground]]:
    folders = [directory / name for name in names]
    for each in folders:
        each.mkdir()
    with ExitStack() as stack:
        with ThreadPoolExecutor(len(names)) as pool:
            made = dict(zip(names, pool.map(Ground, names, folders), strict=True))
        for each in made.values():
            stack.callback(each.close)
        yield made

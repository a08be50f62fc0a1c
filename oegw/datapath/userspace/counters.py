"""What a worker counts, in memory that outlives it: a page for each, by a fixed list of names.

The control process makes the pages and reads them; a successor goes on with its predecessor's.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter

PAGE = 4096  # octets
_GATHER_FROM = PAGE // 8 - 1  # of the first page: behind its counters

NAMES = (
    # Inner packets and their octets, as they were carried.
    "esp_in_packets",
    "esp_in_octets",
    "esp_out_packets",
    "esp_out_octets",
    # ICMP that we answer with.
    "icmp_too_big",
    "icmp_suppressed",
    "drop_icmp",
    # Not carried, from outside.
    "drop_in_truncated",
    "drop_in_unknown_spi",
    "drop_in_encapsulation",
    "drop_in_expired",
    "drop_in_replay",
    "drop_in_invalid",
    "drop_in_dummy",
    "drop_in_next_header",
    "drop_in_selectors",
    "drop_in_congestion",
    "drop_in_packet_truncated",
    "drop_in_packet_version",
    "drop_in_packet_length",
    "drop_in_packet_overlapping_fragment",
    "drop_in_packet_extension_headers",
    "drop_in_keying",
    "drop_in_socket",
    "drop_in_stray",
    "drop_in_device",
    # Not carried, from inside.
    "drop_out_no_tunnel",
    "drop_out_too_big",
    "drop_out_expired",
    "drop_out_packet_truncated",
    "drop_out_packet_version",
    "drop_out_packet_length",
    "drop_out_packet_overlapping_fragment",
    "drop_out_packet_extension_headers",
    "drop_out_frame",
    "drop_out_queue",
    "drop_out_path_mtu",
    "drop_out_socket",
    "drop_out_device",
    # What else happened.
    "keepalives",
    "events_lost",
    "counted_elsewhere",  # under a name that is not in this list
)
_PLACES = {name: place for place, name in enumerate(NAMES)}


class CounterPage:
    """The counters of one worker."""

    def __init__(self, memory: mmap.mmap, page: int) -> None:
        self._counts = memoryview(memory)[page * PAGE : (page + 1) * PAGE].cast("Q")
        first = memoryview(memory)[:PAGE].cast("Q")
        self.gather_from = first[_GATHER_FROM : _GATHER_FROM + 1]  # all workers': `gathering.py`

    def __getitem__(self, name: str) -> int:
        place = _PLACES.get(name)
        return self._counts[place] if place is not None else 0

    def __setitem__(self, name: str, count: int) -> None:
        place = _PLACES.get(name)
        if place is None:
            self._counts[_PLACES["counted_elsewhere"]] += count
            return
        self._counts[place] = count

    def place(self, name: str) -> memoryview:
        """See `core.interface.Places`."""
        place = _PLACES[name]
        return self._counts[place : place + 1]

    def counted(self) -> Counter[str]:
        """What is not zero."""
        return Counter(dict(zip(NAMES, self._counts, strict=False))) + Counter()


class CounterPages:
    """The control process's side: all pages."""

    def __init__(self, pages: int) -> None:
        """Raises OSError if there is no memory."""
        self.descriptor = os.memfd_create("oegw-counters", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.descriptor, pages * PAGE)
            memory = mmap.mmap(self.descriptor, pages * PAGE)
        except OSError:
            os.close(self.descriptor)
            raise
        self._pages = [CounterPage(memory, page) for page in range(pages)]

    def counted(self) -> Counter[str]:
        """Of all workers together."""
        return sum(self.each(), Counter())

    def each(self) -> list[Counter[str]]:
        """Of each page."""
        return [page.counted() for page in self._pages]

    def close(self) -> None:
        """What was counted can still be read."""
        os.close(self.descriptor)


def page_of(descriptor: int, page: int) -> CounterPage:
    """A worker's own, by the descriptor that it was handed."""
    return CounterPage(mmap.mmap(descriptor, os.fstat(descriptor).st_size), page)

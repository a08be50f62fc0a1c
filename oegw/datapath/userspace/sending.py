"""Many datagrams to one destination with one system call: sendmmsg(2), by ctypes.

All that stays the same is written once: of a run only where its packets lie.
"""

from __future__ import annotations

import ctypes
import errno
from array import array
from struct import calcsize

from oegw.datapath.userspace.core.interface import RUN_PACKETS
from oegw.datapath.userspace.mmsghdr import MESSAGE, send_messages

_POINTER = calcsize("@P")
_WORD = "L"  # of array: as long as a pointer on Linux


class MessageBatch:
    """Room for a run, of one socket: ``name`` and ``control`` as long as its family has them."""

    def __init__(self, name: int, control: int) -> None:
        self._name = ctypes.create_string_buffer(name)
        self._control = ctypes.create_string_buffer(control)
        self._places = array(_WORD, bytes(2 * _POINTER * RUN_PACKETS))
        places = self._places.buffer_info()[0]
        self._messages = ctypes.create_string_buffer(
            b"".join(
                MESSAGE.pack(
                    ctypes.addressof(self._name), name, places + 2 * _POINTER * index, 1,
                    ctypes.addressof(self._control), control, 0, 0,
                )
                for index in range(RUN_PACKETS)
            )
        )  # fmt: skip
        self._at = ctypes.addressof(self._messages)
        self._to = b""
        self._from = b""

    def send(
        self, descriptor: int, packets: memoryview, size: int, name: bytes, control: bytes
    ) -> tuple[int, int]:
        """Send ``packets``, each of ``size`` octets but the last, at most RUN_PACKETS of them; how
        many the kernel took, and the errno of the first that it did not, or 0."""
        if name != self._to:
            self._name.raw = self._to = name
        if control != self._from:
            self._control.raw = self._from = control
        whole = len(packets)
        count = -(-whole // size)
        base = ctypes.addressof(ctypes.c_char.from_buffer(packets))
        places = self._places
        places[0 : 2 * count : 2] = array(_WORD, range(base, base + whole, size))
        places[1 : 2 * count : 2] = array(_WORD, [size]) * count
        places[2 * count - 1] = whole - (count - 1) * size
        sent = 0
        while sent < count:
            try:
                sent += send_messages(descriptor, self._at + sent * MESSAGE.size, count - sent)
            except OSError as error:
                return sent, error.errno or errno.EIO
        return sent, 0

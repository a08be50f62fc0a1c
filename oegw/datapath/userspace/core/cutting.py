"""A super-packet becomes packets, as the kernel's own segmentation would make them (GSO).

Per packet the IPv4 identification counts up; lengths, checksums and TCP's sequence number are
set anew; CWR stays on the first (RFC 3168 section 6.1.2), PSH and FIN on the last.
"""

from __future__ import annotations

from oegw.packet.ip import Buffer


def cut(header: Buffer, packet: Buffer) -> list[bytes]:
    """The packets of a frame with the virtio header ``header``, which may be empty.

    None if the header does not fit the packet, which a kernel never does.
    """
    raise NotImplementedError

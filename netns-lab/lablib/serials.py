"""Waits until an authoritative server has zones with a serial number.

``python3 serials.py ORDER`` runs on a host, started by the lab.  ORDER is a JSON object:
``server``, ``zones`` (without the last dot), ``serial`` and ``seconds``.  Exit code 0 if it has
them all, 1 with the zones that it has not.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

SOA, IN = 6, 1
ASKED_SECONDS = 0.2


def question(identifier: int, zone: str) -> bytes:
    labels = [label.encode() for label in zone.split(".") if label]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!6H", identifier, 0, 1, 0, 0, 0) + name + struct.pack("!2H", SOA, IN)


def _after_name(message: bytes, offset: int) -> int:
    while message[offset]:
        if message[offset] >= 0xC0:
            return offset + 2
        offset += 1 + message[offset]
    return offset + 1


def serial_in(message: bytes, asked: bytes) -> int | None:
    """The serial of the SOA record that answers ``asked``, if there is one."""
    if message[:2] != asked[:2] or len(message) < len(asked):
        return None
    answers = struct.unpack_from("!H", message, 6)[0]
    if not answers:
        return None
    offset = _after_name(message, len(asked))
    rdtype, _, _, _ = struct.unpack_from("!2HIH", message, offset)
    if rdtype != SOA:
        return None
    offset = _after_name(message, _after_name(message, offset + 10))
    return int(struct.unpack_from("!I", message, offset)[0])


def main() -> int:
    order = json.loads(sys.argv[1])
    deadline, missing = time.monotonic() + order["seconds"], list(order["zones"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((order["server"], 53))
        sock.settimeout(ASKED_SECONDS)
        identifier = 0
        while missing and time.monotonic() < deadline:
            identifier = (identifier + 1) % 65536
            asked = question(identifier, missing[0])
            try:
                sock.send(asked)
                found = serial_in(sock.recv(65535), asked)
            except OSError:
                found = None
            if found == order["serial"]:
                missing.pop(0)
            else:
                time.sleep(0.01)
    print(", ".join(missing))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())

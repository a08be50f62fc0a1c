#!/usr/bin/env python3
"""The client of the paper's listing 1: where the server's port is, neither of them knows.

python3 starwars_client.py HOST
"""

import struct
import sys

from oegw.moniker import MonikerError, Session, mon_close, mon_connect, mon_recv, mon_send

SERVICE_STRING = "starwars"

REQUEST = struct.Struct("!I")
RESPONSE = struct.Struct("!II")


def main() -> int:
    try:
        server = mon_connect(sys.argv[1], SERVICE_STRING)
    except MonikerError as error:
        print(error, file=sys.stderr)
        return 1
    number, pictures = 0, 1
    while number < pictures:
        mon_send(server, REQUEST.pack(number))
        pictures, size = RESPONSE.unpack(received(server, RESPONSE.size))
        print(received(server, size).decode())
        number += 1
    mon_close(server)
    return 0


def received(server: Session, size: int) -> bytes:
    """As many octets: a stream gives them as they come."""
    octets = b""
    while len(octets) < size:
        more = mon_recv(server, size - len(octets))
        if not more:
            raise EOFError("the server is gone")
        octets += more
    return octets


if __name__ == "__main__":
    sys.exit(main())

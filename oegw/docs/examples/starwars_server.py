#!/usr/bin/env python3
"""The server of the paper's listing 2: a film in text, a process for each of its viewers.

    python3 starwars_server.py [FILM]

FILM is a text file with an empty line after each picture.
"""

import os
import signal
import struct
import sys
from pathlib import Path

from oegw.moniker import (
    MON_STREAM,
    mon_accept,
    mon_close,
    mon_listen,
    mon_recv,
    mon_send,
    mon_service,
)

SERVICE_STRING = "starwars"
SERVICE_VERSION = "1"

REQUEST = struct.Struct("!I")  # the number of a picture
RESPONSE = struct.Struct("!II")  # how many pictures there are, octets of this one, which follow

FILM = """\
A long time ago in a galaxy far,
far away....

    * * *
   STARWARS
    * * *

The end.
"""


def main() -> int:
    film = Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else FILM
    pictures = [each.encode() for each in film.split("\n\n")]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a viewer's process ended

    server = mon_service(MON_STREAM, SERVICE_VERSION, SERVICE_STRING)
    mon_listen(server, 100)
    print(f"{SERVICE_STRING} is served", flush=True)
    while True:
        client = mon_accept(server)
        if os.fork() == 0:
            mon_close(server)  # this process's copy; the name and the port are its parent's
            while len(request := mon_recv(client, REQUEST.size)) == REQUEST.size:
                (number,) = REQUEST.unpack(request)
                picture = pictures[number] if number < len(pictures) else b""
                mon_send(client, RESPONSE.pack(len(pictures), len(picture)) + picture)
            mon_close(client)
            os._exit(0)
        mon_close(client)


if __name__ == "__main__":
    sys.exit(main())

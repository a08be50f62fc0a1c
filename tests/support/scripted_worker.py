"""A worker that moves nothing, for tests of its supervisor: ``python -m ... CONTROL``.

``core`` of its equipment says how it starts: "refuses", "dies", "cannot", else it starts.  Each
answer is the list of what it was told so far.  It never answers REMOVE, and MOVE ends it; it says
itself what HOME says that it goes without.
"""

from __future__ import annotations

import os
import socket
import sys

from oegw.datapath.userspace import channel
from oegw.datapath.userspace.channel import Kind, Message


def main(control: socket.socket) -> None:
    told: list[str] = []
    while octets := control.recv(channel.LARGEST):
        message = Message.parse(octets)
        told.append(message.kind.name)
        if message.kind is Kind.START:
            core = message.body[0]
            if core == "dies":
                os._exit(3)
            kind = Kind.REFUSAL if core == "refuses" else Kind.ANSWER
            body = (
                "no such core"
                if core == "refuses"
                else [core, "scripted", [["AES-GCM", "a script", ""]]]
            )
            control.send(Message(kind, message.number, body).serialize())
        elif message.kind is Kind.MOVE:
            control.send(Message(Kind.REFUSAL, 0, "the device is gone").serialize())
        elif message.kind is Kind.HOME:
            control.send(Message(Kind.WITHOUT, 0, message.body).serialize())
        elif message.number and message.kind is not Kind.REMOVE:
            control.send(Message(Kind.ANSWER, message.number, told).serialize())


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as channel_end:
        main(channel_end)

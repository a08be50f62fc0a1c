"""The process that has the gateway's private key: ``python -m oegw.powers.signer CHANNEL USER``.

It is told where the key's file is, reads it as who may, gives up all rights, and tells the public
key.  From then on the channel is the mind's: a datagram is a digest, the answer a signature, or
one octet for what is none.  It ends when nobody is left who could ask.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from ike.signer import Signer
from oegw.keys import KeyFileError, read_private
from oegw.powers.dropping import PowerError, drop, user_of
from oegw.powers.systemcalls import EXECUTING, OPENING, TAKING

# Specification values: how long the hashes of IKE are, MD5 to SHA-512.
DIGESTS = frozenset((16, 20, 32, 48, 64))

REFUSED = b"\0"  # shorter than any signature
_PATH = 4096  # octets, PATH_MAX
LONGEST = 2048  # octets of an answer


def serve(channel: socket.socket, signer: Signer) -> None:
    """Until the other end is closed."""
    while True:
        try:
            digest = channel.recv(max(DIGESTS) + 1)
            if not digest:
                return
            channel.send(signer.sign(digest) if len(digest) in DIGESTS else REFUSED)
        except OSError:
            return


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    # A signal to the whole process group is others' to act on.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    with socket.socket(fileno=int(arguments[0])) as channel:
        path = channel.recv(_PATH)
        if not path:
            return 0
        try:
            key = read_private(Path(path.decode()))
            drop(
                user_of(arguments[1]),
                end_with_parent=True,
                forbid=EXECUTING | TAKING | OPENING,
            )
        except (KeyFileError, PowerError) as error:
            channel.send(json.dumps({"error": str(error)}).encode())
            return 1
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signer = Signer(key)
        signer.sign(bytes(max(DIGESTS)))  # what it loads, it loads now
        channel.send(json.dumps({"public": public.hex()}).encode())
        serve(channel, signer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

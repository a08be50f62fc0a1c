"""Numbers that hold everywhere in this room.

First what the specifications say, then what we chose, each with its reason.
"""

from __future__ import annotations

# Specification values.

COOKIE_LENGTH = 8  # RFC 2408 section 3.1
HEADER_LENGTH = 28  # RFC 2408 section 3.1
NONCE_SHORTEST = 8  # RFC 2409 section 5
NONCE_LONGEST = 256
SPI_LOWEST = 256  # RFC 4303 section 2.1: 1 to 255 are reserved
DEFAULT_LIFETIME = 28800  # seconds; RFC 2407 section 4.5, when a proposal names none
DELETE_TRIES = 3  # RFC 4322 section 3.4.2
DELETE_INTERVAL = 10.0  # seconds; RFC 4322 section 3.4.2
NAT_PORT = 4500  # RFC 3947 section 4: IKE and ESP in UDP
NON_ESP_MARKER = bytes(4)  # RFC 3948 section 2.2: before IKE on that port
KEEPALIVE = b"\xff"  # RFC 3948 section 2.3

# Our choices.

NONCE_LENGTH = 32  # octets; as long as the key of the strongest PRF here
MESSAGE_LONGEST = 16384  # octets; far above any honest message, bounds the parser's work
PAYLOADS_MOST = 64  # per message
TRANSFORMS_MOST = 256  # per SA payload, of which we look at all
ATTRIBUTES_MOST = 32  # per transform
SPIS_MOST = 1024  # per Delete payload
CANDIDATES_MOST = 3  # rival clear messages that one main mode follows (see v1/main_mode.py)
DUPLICATES_ANSWERED = 5  # times that one request may be repeated to us and be answered again
QUICK_MODES_MOST = 64  # under way at once on one channel, as responder
QUEUE_MOST = 1000  # tunnels waiting for one channel
UNANSWERED_MOST = 32  # main modes to one address without message 2; others name it, not its host
INITIATIONS_MOST = 10000  # tunnels that we negotiate at once, in all
MESSAGE_IDS_MOST = 100000  # remembered per channel; a channel that used them up is closed
REPLIES_KEPT = 64  # answers to informational exchanges, for duplicates
LIFETIME_SHORTEST = 60  # seconds; a peer that proposes less gets this
BYTES_SHORTEST = 1 << 20  # octets; a peer that proposes less gets this
CHANNEL_REUSE_MARGIN = 30.0  # seconds; a channel with less left is not used for a new tunnel ...
REUSE_FRACTION = 0.1  # ... nor one with less than this part of its lifetime, if that is shorter
REKEY_MARGIN = 540.0  # seconds before the end in which the successor is made ...
REKEY_FRACTION = 0.3  # ... or this part of the lifetime, if that is shorter
REKEY_INTERVAL = 10.0  # seconds between attempts at a successor, for a minute; then a minute
REKEY_SHORTEST_INTERVAL = 0.5  # seconds; with lifetimes of a few seconds
SOFT_FRACTION = 0.7  # of a channel's octets or message IDs, after which its successor is made
PORT_KEY_LONGEST = 86400.0  # seconds that a channel gives the key of port encryption to new tunnels
PORT_KEY_SLACK = 3600.0  # seconds; what the peer began in time we still answer so
CHANNEL_IDLE = 1800.0  # seconds; a channel without a tunnel for so long is not renewed
RETIRE_GRACE = 5.0  # seconds that a replaced SA still receives; packets may be under way on it ...
RETIRE_FRACTION = 0.1  # ... or this part of its lifetime, if that is shorter
RETIRE_PATIENCE = 3  # graces that a responder leaves to the initiator to delete the replaced one
REDUNDANT_GRACE = 0.5  # seconds until the redundant one of two tunnels begun at once is closed
AT_ONCE = 2.0  # seconds; what both sides began within them counts as begun at the same time
PORT_TRIES = 2  # message 5 unanswered so often on port 4500: it may be blocked, and port 500 not
REUSE_TRIES = 2  # message 1 unanswered so often on an old channel: the peer may have lost it
MOVES_MOST = 3  # times that one tunnel begins anew on another channel
CONTACTS_MOST = 10000  # peers that INITIAL-CONTACT is owed to
DPD_RETRY = 2.0  # seconds between R-U-THERE messages that are not answered
TRIPLE_DES_BYTES = 1 << 30  # octets under one key: 2**27 blocks, far under 2**32 (Sweet32)
KEY_PAIRS_KEPT = 2  # per group, made in idle moments
RSA_SHORTEST = 1024  # bits of a peer's modulus
RSA_LONGEST = 8192  # bits; verification with more costs too much
CLAIMS_MOST = 4  # messages 6 that wait for the peer's keys; all but one are forged or corrupted
STRIKES_MOST = 2  # wrong signatures until we believe them: the first may be a corrupted message
CHANNELS_PER_PEER = 8  # that one peer began and that are up; the oldest idle one gives way
CHANNELS_MOST = 10000  # that peers began and that are up, in all
DECISION_LONGEST = 60.0  # seconds; a shell that has not answered by then never will
FRAGMENTS_MOST = 64  # per message
FRAGMENT_TIMEOUT = 10.0  # seconds; a message that is not whole by then never will be
REASSEMBLIES_MOST = 256  # messages put together at once, in all
REASSEMBLIES_PER_SOURCE = 8  # and from one source
REASSEMBLY_READINGS = 6  # ways in which the fragments of one message may belong together

"""The errors of this room.

A ``Dropped`` is a stranger's fault: the endpoint turns it into one counted
``MessageDropped(trigger)`` event, and state stays as it was.  An
``ExchangeRefused`` is the fault of a peer that has proved knowledge of the
channel's keys; it ends one exchange and knows the notify that answers it.
``IllegalTransition`` is our own misuse and is never caused by input.
"""

from __future__ import annotations

from typing import ClassVar

from ike.events import Failure
from ike.registry import NotifyType


class IkeError(Exception):
    """Base of all errors that input can cause here."""

    trigger: ClassVar[str] = "ike_error"


class Dropped(IkeError):  # noqa: N818 - says what happens
    """A message is not taken.  ``trigger`` is the name under which it is counted."""

    trigger: ClassVar[str] = "dropped"


class TruncatedMessage(Dropped):
    trigger = "truncated"


class TrailingOctets(Dropped):
    trigger = "trailing_octets"


class LengthMismatch(Dropped):
    trigger = "length_mismatch"


class UnsupportedVersion(Dropped):
    trigger = "unsupported_version"


class InvalidCookie(Dropped):
    trigger = "invalid_cookie"


class InvalidMessageId(Dropped):
    trigger = "invalid_message_id"


class AggressiveMode(Dropped):
    trigger = "aggressive_mode"


class UnknownExchange(Dropped):
    trigger = "unknown_exchange"


class UnknownCookies(Dropped):
    trigger = "unknown_cookies"


class WrongAddress(Dropped):
    trigger = "wrong_address"


class UnknownPayload(Dropped):
    trigger = "unknown_payload"


class TooManyPayloads(Dropped):
    trigger = "too_many_payloads"


class MissingPayload(Dropped):
    trigger = "missing_payload"


class RepeatedPayload(Dropped):
    trigger = "repeated_payload"


class MalformedPayload(Dropped):
    trigger = "malformed_payload"


class UnsupportedDoi(Dropped):
    trigger = "unsupported_doi"


class InvalidNonce(Dropped):
    trigger = "invalid_nonce"


class InvalidKeyExchange(Dropped):
    """A Diffie-Hellman value of the wrong length or outside 2 .. p-2."""

    trigger = "invalid_key_exchange"


class InvalidIdentity(Dropped):
    trigger = "invalid_identity"


class NoProposalChosen(Dropped):
    trigger = "no_proposal_chosen"


class NoNatTraversal(NoProposalChosen):
    """ESP shall go in UDP, and the peer cannot (RFC 3947 section 3.1)."""

    trigger = "no_nat_traversal"


class NoMarker(Dropped):
    """What is no IKE message on the port of ESP in UDP (RFC 3948 section 2.2)."""

    trigger = "no_marker"


class FragmentDropped(Dropped):
    """A fragment that no message can be made of."""

    trigger = "fragment"


class WrongChoice(Dropped):
    """The responder chose what we did not offer (RFC 2409 section 5)."""

    trigger = "wrong_choice"


class GarbledMessage(Dropped):
    """An encrypted message does not decrypt to payloads."""

    trigger = "garbled"


class WrongHash(Dropped):
    trigger = "wrong_hash"


class WrongSignature(Dropped):
    trigger = "wrong_signature"


class WrongIdentity(Dropped):
    trigger = "wrong_identity"


class ClearMessage(Dropped):
    """What must be encrypted came in the clear."""

    trigger = "clear_message"


class UnauthenticatedNotify(Dropped):
    trigger = "unauthenticated_notify"


class UnexpectedMessage(Dropped):
    trigger = "unexpected_message"


class DuplicateMessage(Dropped):
    trigger = "duplicate"


class ReplayedMessageId(Dropped):
    trigger = "replayed_message_id"


class ReplayedSequence(Dropped):
    """An R-U-THERE whose number is not above the last one's (RFC 3706 section 6)."""

    trigger = "replayed_sequence"


class HalfOpenSourceLimit(Dropped):
    trigger = "half_open_source_limit"


class TooManyExchanges(Dropped):
    trigger = "too_many_exchanges"


class InternalRefusal(Dropped):
    """The library underneath refused a value that passed our own checks."""

    trigger = "refused_by_library"


class ExchangeRefused(IkeError):  # noqa: N818 - says what happened
    """An authenticated peer's quick mode cannot go on.

    ``notify`` answers it; ``failure`` is what our side reports.
    """

    trigger: ClassVar[str] = "quick_mode_refused"

    def __init__(self, notify: NotifyType, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.notify = notify
        self.failure = failure


class IllegalTransition(Exception):  # noqa: N818 - says what happened
    """A state machine was asked for a step that its table does not have."""

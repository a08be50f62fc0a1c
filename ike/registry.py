"""IANA numbers.  Unknown ones parse, print and encode again: rejecting is not this module's job."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class OpenEnum(IntEnum):
    """An IntEnum that survives strangers' numbers.

    The nameless members are made afresh each time, so strangers cannot fill memory.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"{cls.__name__}_{value}"
        member._value_ = value
        return member


class ExchangeType(OpenEnum):
    """RFC 2408 section 3.1, RFC 2409 appendix A."""

    BASE = 1
    IDENTITY_PROTECTION = 2  # main mode
    AUTHENTICATION_ONLY = 3
    AGGRESSIVE = 4
    INFORMATIONAL = 5
    QUICK_MODE = 32
    NEW_GROUP_MODE = 33


class PayloadType(OpenEnum):
    """RFC 2408 section 3.1, RFC 3947 section 9."""

    NONE = 0
    SECURITY_ASSOCIATION = 1
    PROPOSAL = 2
    TRANSFORM = 3
    KEY_EXCHANGE = 4
    IDENTIFICATION = 5
    CERTIFICATE = 6
    CERTIFICATE_REQUEST = 7
    HASH = 8
    SIGNATURE = 9
    NONCE = 10
    NOTIFICATION = 11
    DELETE = 12
    VENDOR_ID = 13
    NAT_DISCOVERY = 20
    NAT_ORIGINAL_ADDRESS = 21
    FRAGMENT = 132  # private use: a piece of a message, as Cisco made it and all follow


PRIVATE_PAYLOADS = range(128, 256)  # RFC 2408 section 3.1: private use, ignored when unknown


class Protocol(OpenEnum):
    """Security protocols, RFC 2407 section 4.4.1."""

    ISAKMP = 1
    AH = 2
    ESP = 3
    IPCOMP = 4


class IdType(OpenEnum):
    """RFC 2407 section 4.6.2.1."""

    IPV4_ADDR = 1
    FQDN = 2
    USER_FQDN = 3
    IPV4_ADDR_SUBNET = 4
    IPV6_ADDR = 5
    IPV6_ADDR_SUBNET = 6
    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8
    DER_ASN1_DN = 9
    DER_ASN1_GN = 10
    KEY_ID = 11


class NotifyType(OpenEnum):
    """RFC 2408 section 3.14.1, RFC 2407 section 4.6.3."""

    INVALID_PAYLOAD_TYPE = 1
    DOI_NOT_SUPPORTED = 2
    SITUATION_NOT_SUPPORTED = 3
    INVALID_COOKIE = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_EXCHANGE_TYPE = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    ATTRIBUTES_NOT_SUPPORTED = 13
    NO_PROPOSAL_CHOSEN = 14
    BAD_PROPOSAL_SYNTAX = 15
    PAYLOAD_MALFORMED = 16
    INVALID_KEY_INFORMATION = 17
    INVALID_ID_INFORMATION = 18
    INVALID_HASH_INFORMATION = 23
    AUTHENTICATION_FAILED = 24
    INVALID_SIGNATURE = 25
    CONNECTED = 16384
    RESPONDER_LIFETIME = 24576
    REPLAY_STATUS = 24577
    INITIAL_CONTACT = 24578
    R_U_THERE = 36136  # RFC 3706 section 5.3, private use
    R_U_THERE_ACK = 36137


NOTIFY_ERRORS = range(1, 16384)  # RFC 2408 section 3.14.1: error types; the others are status


class Phase1Attribute(OpenEnum):
    """RFC 2409 appendix A."""

    ENCRYPTION = 1
    HASH = 2
    AUTHENTICATION = 3
    GROUP = 4
    GROUP_TYPE = 5
    LIFE_TYPE = 11
    LIFE_DURATION = 12
    PRF = 13
    KEY_LENGTH = 14


class Phase2Attribute(OpenEnum):
    """RFC 2407 section 4.5; 11 from RFC 4304 section 2."""

    LIFE_TYPE = 1
    LIFE_DURATION = 2
    GROUP = 3
    ENCAPSULATION = 4
    AUTHENTICATION = 5
    KEY_LENGTH = 6
    KEY_ROUNDS = 7
    EXTENDED_SEQUENCE_NUMBER = 11
    # Private use (32001 to 32767), and ours: port encryption inside the tunnel, a ``PortCipher``.
    # Not the first of them, which others took for security labels before those had a number.
    SST_MODE = 32401


class PortCipher(OpenEnum):
    """What encrypts ports; the number in DNS, too (draft-unice-dispatch-enc-ports)."""

    FF1_AES_128 = 1


class LifeType(OpenEnum):
    SECONDS = 1
    KILOBYTES = 2


class Encryption(OpenEnum):
    """Phase 1 ciphers, RFC 2409 appendix A and RFC 3602 section 6."""

    DES_CBC = 1
    TRIPLE_DES_CBC = 5
    AES_CBC = 7


class Hash(OpenEnum):
    """RFC 2409 appendix A; 4 from RFC 4868 section 4 and the IANA registry."""

    MD5 = 1
    SHA1 = 2
    SHA2_256 = 4


class Authentication(OpenEnum):
    """Phase 1 methods, RFC 2409 appendix A."""

    PRE_SHARED_KEY = 1
    DSS_SIGNATURES = 2
    RSA_SIGNATURES = 3
    RSA_ENCRYPTION = 4
    REVISED_RSA_ENCRYPTION = 5


class Group(OpenEnum):
    """MODP groups: RFC 2409 section 6, RFC 3526."""

    MODP_768 = 1
    MODP_1024 = 2
    MODP_1536 = 5
    MODP_2048 = 14
    MODP_3072 = 15


class EspTransform(OpenEnum):
    """RFC 2407 section 4.4.4, RFC 3602 section 5.3, RFC 4106 section 8."""

    TRIPLE_DES = 3
    AES_CBC = 12
    AES_GCM_16 = 20


class EspAuthentication(OpenEnum):
    """RFC 2407 section 4.5; 5 from RFC 4868."""

    HMAC_MD5 = 1
    HMAC_SHA1 = 2
    HMAC_SHA2_256 = 5


class Encapsulation(OpenEnum):
    """RFC 2407 section 4.5, RFC 3947 section 5.1; the last two as the drafts before it said."""

    TUNNEL = 1
    TRANSPORT = 2
    UDP_TUNNEL = 3
    UDP_TRANSPORT = 4
    DRAFT_UDP_TUNNEL = 61443
    DRAFT_UDP_TRANSPORT = 61444


KEY_IKE = 1  # transform number of phase 1, RFC 2407 section 4.4.2
DOI_IPSEC = 1  # RFC 2407 section 4.1
SITUATION_IDENTITY_ONLY = 1  # RFC 2407 section 4.2.1

"""100,000 and more inputs for each parser of strangers' octets: this room's errors only."""

import random
from collections.abc import Callable
from ipaddress import ip_address

import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest

from dnsrecords import rsakey
from dnsrecords.delegation import Delegation
from dnsrecords.errors import RecordError
from dnsrecords.ipseckey import IpsecKey
from dnsrecords.key import HostKey
from dnsrecords.response import query_octets, read_response
from dnsrecords.sstkey import SstKey
from tests.support.dns_keys import KEY_1024, KEY_2048, key_rdata, txt
from tests.support.sst_keys import sst_key

ROUNDS = 100_000
NAME = dns.name.from_text("66.0.2.192.in-addr.arpa.")
TXT = dns.rdatatype.TXT
SG_B = ip_address("192.1.1.5")


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Random octets, or a seed with octets changed, removed, doubled or cut off."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(64))
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                data[at : at + 1] = rng.choice((b"\x00", b"\xff", b" ", b"(", b")", b"=", b"@"))
            case 2:
                del data[at : at + rng.randrange(1, 9)]
            case 3:
                data[at:at] = data[at : at + rng.randrange(1, 33)]
            case 4:
                del data[at:]
    return bytes(data)


def fuzz(parse: Callable[[bytes], object], seeds: list[bytes]) -> tuple[int, int]:
    rng = random.Random(4322)
    read = refused = 0
    triggers: set[str] = set()
    for _ in range(ROUNDS):
        data = mutated(rng, seeds)
        try:
            parse(data)
        except RecordError as error:
            refused += 1
            triggers.add(error.trigger)
        else:
            read += 1
    assert RecordError.trigger not in triggers, "each refusal has a name of its own"
    return read, refused


@pytest.mark.fuzz
def test_txt_records() -> None:
    seeds = [
        Delegation(10, SG_B, None, KEY_2048).serialize(),
        Delegation(10, ip_address("2001:db8::5"), None, KEY_1024).serialize(),
        Delegation(0xFFFF, None, "sg-a.example").serialize(),
        txt(" X-IPsec-Server ( 0x10 ) = 192.1.1.5", "AQ"),
        txt("X-IPsec-Gateway(1)=192.1.1.5"),
        txt("X-IPsec-Server(1)=::"),
    ]
    read, refused = fuzz(Delegation.parse, seeds)
    assert read > 1000
    assert refused > 1000


@pytest.mark.fuzz
def test_key_records() -> None:
    seeds = [key_rdata(KEY_1024), key_rdata(KEY_2048), key_rdata(KEY_1024, "c2000403")]
    read, refused = fuzz(HostKey.parse, seeds)
    assert read > 1000
    assert refused > 1000


@pytest.mark.fuzz
def test_ipseckey_records() -> None:
    def parse(data: bytes) -> None:
        record = IpsecKey.parse(data)
        if record is not None:
            record.public_key()

    seeds = [
        IpsecKey.of(10, SG_B, None, KEY_2048).serialize(),
        IpsecKey.of(10, ip_address("2001:db8::5"), None, KEY_1024).serialize(),
        IpsecKey.of(10, None, "sg-b.example", KEY_1024).serialize(),
        IpsecKey.of(10, None, "sg-b.example", None).serialize(),
        IpsecKey.of(10, None, None, KEY_1024).serialize(),
    ]
    read, refused = fuzz(parse, seeds)
    assert read > 1000
    assert refused > 1000


@pytest.mark.fuzz
def test_rsa_keys() -> None:
    wide = rsakey.serialize(rsakey.rsa.RSAPublicNumbers(3, (1 << 8191) + 1).public_key())
    seeds = [rsakey.serialize(KEY_1024), rsakey.serialize(KEY_2048), wide, b"\x00\x01\x00" + wide]
    read, refused = fuzz(rsakey.parse, seeds)
    assert read > 1000
    assert refused > 1000


@pytest.mark.fuzz
def test_keys_in_text() -> None:
    seeds = [
        rsakey.format_text(KEY_1024).encode(),
        b"0x" + rsakey.serialize(KEY_1024).hex().encode(),
    ]
    read, refused = fuzz(lambda data: rsakey.parse_text(data.decode("latin-1")), seeds)
    assert read > 1000
    assert refused > 1000


@pytest.mark.fuzz
def test_dns_responses() -> None:
    query = dns.message.from_wire(query_octets(NAME, TXT, 7))
    seeds = []
    for lines in (
        ['66.0.2.192.in-addr.arpa. 60 IN TXT "X-IPsec-Server(10)=192.1.1.5" "x"'],
        ["66.0.2.192.in-addr.arpa. 60 IN CNAME b.example.", "b.example. 60 IN KEY 16896 4 1 AQNR"],
        ["2.192.in-addr.arpa. 60 IN SOA ns.example. h.example. 1 2 3 4 5"],
    ):
        response = dns.message.make_response(query)
        for line in lines:
            owner, ttl, _, rdtype, text = line.split(maxsplit=4)
            section = response.authority if rdtype == "SOA" else response.answer
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", rdtype, text))
        seeds.append(response.to_wire())
    read, refused = fuzz(lambda data: read_response(data, NAME, TXT, 7), seeds)
    assert read > 1000
    assert refused > 1000


@pytest.mark.fuzz
def test_dns_responses_with_names_in_them() -> None:
    query = dns.message.from_wire(query_octets(NAME, dns.rdatatype.PTR, 7))
    response = dns.message.make_response(query)
    text = "66.0.2.192.in-addr.arpa. 60 IN PTR b.0.2.192.in-addr.arpa."
    owner, ttl, _, rdtype, target = text.split()
    response.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", rdtype, target))

    def parse(data: bytes) -> None:
        for rdata in read_response(data, NAME, dns.rdatatype.PTR, 7).records:
            assert rdata.endswith(b"\0")

    read, refused = fuzz(parse, [response.to_wire()])
    assert read > 1000
    assert refused > 1000


@pytest.mark.fuzz
def test_sst_keys() -> None:
    def parse(data: bytes) -> None:
        key = SstKey.parse(data)
        assert key is None or SstKey.parse(key.serialize()) == key

    seeds = [
        sst_key(SG_B).serialize(),
        sst_key(ip_address("2001:db8::5"), 2, precedence=0, algorithm=2).serialize(),
        txt("X-SST-Key(10)=192.1.1.5 3 of:another:form"),
        txt("X-SST-Key(10)=192.1.1.5 1 ", "AAAA"),
    ]
    read, refused = fuzz(parse, seeds)
    assert read > 1000
    assert refused > 1000

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsrecords.errors import MalformedHostKey, MalformedRsaKey
from dnsrecords.wire import Reader


def test_reads_in_order() -> None:
    reader = Reader(bytes(range(8)), MalformedRsaKey)
    assert (reader.uint8("a"), reader.uint16("b"), reader.take(2, "c")) == (0, 0x0102, b"\x03\x04")
    assert reader.left == 3
    assert reader.rest() == b"\x05\x06\x07"
    assert reader.rest() == b""


@given(st.binary(max_size=8), st.integers(0, 16))
def test_never_runs_over_the_end(octets: bytes, count: int) -> None:
    reader = Reader(octets, MalformedHostKey)
    if count <= len(octets):
        assert reader.take(count, "field") == octets[:count]
    else:
        with pytest.raises(MalformedHostKey, match=f"field: {count} octets needed"):
            reader.take(count, "field")
        assert reader.left == len(octets)

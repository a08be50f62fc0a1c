"""The memory of SA records, and what of an SA lies in it."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from oegw.datapath.userspace.esp import LAST_SEQUENCE, InboundSa, OutboundSa
from oegw.datapath.userspace.record import RECORD, RING, private_record, record_size, ring_size
from oegw.datapath.userspace.state import CHUNK, EXPIRED, SOFTENED, Chunks, Memory, Record
from tests.support.datapath_sas import make_sa


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    os.close(made.descriptor)


def test_records_do_not_overlap_and_cross_no_chunk(memory: Memory) -> None:
    source = random.Random(1)
    ends: list[tuple[int, int]] = []
    for _ in range(2000):
        window = source.choice((0, 0, 32, 1024, 4096, 5000))
        offset = memory.allocate(window)
        size = record_size(window)
        assert offset % 64 == 0
        assert offset // CHUNK == (offset + size - 1) // CHUNK
        ends.append((offset, offset + size))
    ends.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))


def test_a_record_is_used_again_and_is_new_then(memory: Memory) -> None:
    offset = memory.allocate(1024)
    record = memory.record(offset)
    record.sequence = 77
    record.count(1, 2, 3.0)
    record.set_flag(EXPIRED)
    record.memory[record.at + RING] = 255
    memory.free(offset, 1024)
    assert memory.allocate() != offset
    assert memory.allocate(1024) == offset
    again = memory.record(offset)
    assert again.used == (0, 0, 0, 0)
    assert not again.flag(EXPIRED)
    assert not any(again.memory[again.at + RING : again.at + record_size(1024)])
    assert int.from_bytes(again.memory[again.at + 36 : again.at + 40], "little") == 1024


def test_ten_thousand_come_and_go_in_the_same_memory(memory: Memory) -> None:
    for _ in range(3):
        offsets = [memory.allocate(1024) for _ in range(10_000)]
        size = os.fstat(memory.descriptor).st_size
        for offset in offsets:
            memory.free(offset, 1024)
    assert size == os.fstat(memory.descriptor).st_size < 3 * CHUNK


def test_what_one_process_writes_another_reads(memory: Memory) -> None:
    offset = memory.allocate(64)
    worker = Chunks(os.dup(memory.descriptor)).record(offset)
    worker.sequence = 2**40
    worker.count(3, 100, 1.5)
    ours = memory.record(offset)
    assert ours.used == (2**40, 3, 100, 1_500_000_000)
    ours.set_flag(EXPIRED)
    assert worker.flag(EXPIRED)
    assert not worker.flag(SOFTENED)
    assert worker.set_flag(SOFTENED)
    assert not worker.set_flag(SOFTENED)


def test_taking_numbers() -> None:
    record = private_record()
    assert record.take(1, 100, 2.0, 10) == 1
    assert record.take(5, 500, 3.0, 10) == 2
    assert record.take(5, 500, 4.0, 10) is None
    assert record.used == (6, 6, 600, 3_000_000_000)
    assert record.take(4, 400, 5.0, 10) == 7
    assert record.take(1, 1, 6.0, 10) is None


def take_many(descriptor: int, offset: int, rounds: int, answers: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    record = Chunks(descriptor).record(offset, shared=True)
    answers.put([record.take(3, 30, 1.0, 10**9) for _ in range(rounds)])


def test_several_processes_take_different_numbers(memory: Memory) -> None:
    offset = memory.allocate()
    start = multiprocessing.get_context("fork")
    answers = start.Queue()
    processes = [
        start.Process(target=take_many, args=(memory.descriptor, offset, 300, answers))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    taken = sorted(number for _ in processes for number in answers.get(timeout=60))
    for process in processes:
        process.join()
    assert taken == list(range(1, 2701, 3))
    assert memory.record(offset).used[:3] == (2700, 2700, 27000)


def test_an_sa_goes_on_where_its_predecessor_ended(memory: Memory) -> None:
    """A worker died; its successor has the same records."""
    out, into = memory.allocate(), memory.allocate(1024)
    spec = make_sa(soft_bytes=100, hard_bytes=300)
    first = OutboundSa(spec, random.randbytes, memory.record(out))
    inbound = InboundSa(make_sa(), random.randbytes, memory.record(into))
    packets = [first.seal(bytes(50), 4, 1.0) for _ in range(3)]
    for packet in packets[::2]:
        assert packet is not None
        inbound.open(packet, int.from_bytes(packet[4:8], "big"))
    assert first.wants_replacement
    assert first.soften()
    second = OutboundSa(spec, random.randbytes, memory.record(out))
    assert second.softened
    assert second.usage == first.usage
    fourth = second.seal(bytes(50), 4, 2.0)
    assert fourth is not None
    assert fourth[4:8] == b"\0\0\0\4"
    assert second.take(1, 150, 3.0) is None  # over the hard limit
    successor = InboundSa(make_sa(), random.randbytes, memory.record(into))
    assert [successor.window.fresh(number) for number in (1, 2, 3, 4)] == [False, True, False, True]
    first.expire()
    assert second.seal(b"", 4, 3.0) is None


def test_the_last_number() -> None:
    sa = OutboundSa(make_sa(), random.randbytes)
    sa.sequence = LAST_SEQUENCE - 3
    assert sa.take(4, 4, 1.0) is None
    assert not sa.exhausted
    assert sa.take(3, 3, 1.0) == LAST_SEQUENCE - 2
    assert sa.exhausted
    assert sa.seal(b"", 4, 1.0) is None


def test_sizes() -> None:
    assert [ring_size(window) for window in (1, 32, 33, 1024)] == [1, 32, 64, 1024]
    assert record_size(0) == RECORD
    assert record_size(32) == RECORD + 64
    assert record_size(4096) == RECORD + 512


def test_a_record_shows_no_key() -> None:
    sa = make_sa()
    assert sa.encryption_key.hex() not in repr(Record(private_record().memory, 0, 0))

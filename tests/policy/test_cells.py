"""Cells against a scan of all prefixes, over an address space of six bits."""

from hypothesis import given
from hypothesis import strategies as st

from policy.cells import cut

WIDTH = 6
prefixes = st.builds(
    lambda address, length: (address >> WIDTH - length << WIDTH - length) << 8 | length,
    st.integers(0, 2**WIDTH - 1),
    st.integers(0, WIDTH),
)
lists = st.lists(st.sets(prefixes, max_size=12), max_size=3)


def contains(key, address):
    host_bits = WIDTH - (key & 0xFF)
    return address >> host_bits == key >> 8 >> host_bits


def chain_of(lists, address):
    """All levels, then without those that say the same as the next shorter one."""
    levels = []
    for length in range(WIDTH + 1):
        numbers = tuple(
            number
            for number, keys in enumerate(lists)
            if any(key & 0xFF == length and contains(key, address) for key in keys)
        )
        if numbers and not (levels and levels[-1][1] == numbers):
            levels.append((length, numbers))
    return tuple(reversed(levels))


@given(lists)
def test_each_address_has_the_chain_of_the_prefixes_that_contain_it(lists):
    cells = cut(WIDTH, enumerate(lists))
    for address in range(2**WIDTH):
        assert cells.levels[cells.chains[cells.find(address)]] == chain_of(lists, address)


@given(lists)
def test_a_block_is_the_largest_whose_addresses_have_the_same_chain(lists):
    cells = cut(WIDTH, enumerate(lists))
    chains = [chain_of(lists, address) for address in range(2**WIDTH)]
    for address in range(2**WIDTH):
        length = next(
            length
            for length in range(WIDTH + 1)
            if all(
                chains[other] == chains[address]
                for other in range(2**WIDTH)
                if other >> WIDTH - length == address >> WIDTH - length
            )
        )
        assert cells.block_length(cells.find(address), address) == length


@given(lists)
def test_starts_rise_and_neighbours_differ(lists):
    cells = cut(WIDTH, enumerate(lists))
    assert cells.starts[0] == 0
    assert list(cells.starts) == sorted(set(cells.starts))
    assert all(a != b for a, b in zip(cells.chains, list(cells.chains)[1:], strict=False))

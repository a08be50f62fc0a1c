"""How a name server does, and who is asked first."""

from ipaddress import ip_address

from dnsrecords.upstream import DEAD_SILENCE, PROBE_INTERVAL, Standing, Upstream, in_order

ONE, TWO, THREE = (ip_address(f"192.1.1.{n}") for n in (53, 54, 55))


def upstream(address=ONE, trusted: bool = False) -> Upstream:  # type: ignore[no-untyped-def]
    return Upstream(address, trusted=trusted, timeout=1.0)


def dead(address=ONE, trusted: bool = False) -> Upstream:  # type: ignore[no-untyped-def]
    one = upstream(address, trusted)
    one.asked(0.0)
    for now in (1.0, 3.0, 5.0):
        one.timed_out(now)
    assert one.standing is Standing.DEAD
    return one


def test_three_timeouts_and_four_silent_seconds_make_it_dead() -> None:
    one = upstream()
    one.asked(0.0)
    for now in (1.0, 2.0, 3.0):
        one.timed_out(now)
    assert one.standing is Standing.GOOD, "many questions at once may all be lost in one moment"
    one.timed_out(DEAD_SILENCE)
    assert one.standing is Standing.DEAD
    assert one.report().timeouts == 4


def test_silence_is_counted_from_the_first_unanswered_question() -> None:
    one = upstream()
    one.asked(0.0)
    one.answered(0.1, 0.1)
    one.asked(100.0)
    for now in (101.0, 102.0, 103.0):
        one.timed_out(now)
    assert one.standing is Standing.GOOD
    one.timed_out(104.0)
    assert one.standing is Standing.DEAD


def test_one_answer_brings_it_back() -> None:
    one = dead()
    one.answered(6.0, 0.02)
    report = one.report()
    assert (report.standing, report.timeouts, report.last_answer) == (Standing.GOOD, 0, 6.0)
    assert report.smoothed == 0.02


def test_slow_is_an_average() -> None:
    one = upstream()
    one.answered(1.0, 3.0)
    assert one.standing is Standing.SLOW
    for now in range(2, 12):
        one.answered(float(now), 0.01)
    assert one.standing is Standing.GOOD


def test_those_behind_are_probed_now_and_then() -> None:
    one = dead()
    assert not one.probe_due(5.0)
    assert one.probe_due(5.0 + PROBE_INTERVAL)
    assert not one.probe_due(5.1 + PROBE_INTERVAL)
    assert not upstream().probe_due(1e9), "who is asked anyway needs none"


def test_the_living_then_the_trusted_then_the_quick_then_as_configured() -> None:
    slow_trusted, gone, plain = upstream(ONE, True), dead(TWO, True), upstream(THREE)
    slow_trusted.answered(1.0, 3.0)
    assert in_order([gone, plain, slow_trusted]) == [slow_trusted, plain, gone]
    slow = upstream(TWO)
    slow.answered(1.0, 3.0)
    assert in_order([slow, plain]) == [plain, slow]
    same = upstream(ONE)
    assert in_order([plain, same]) == [plain, same]

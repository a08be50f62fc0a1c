"""Another configuration taken into use for good, or on trial: what is in use at every end of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from oegw import applyrecord, cli
from oegw.applying import ApplyError, Applying
from oegw.applyrecord import InUse, RecordError, at_start, in_use, record_file
from oegw.config import ConfigError
from oegw.intercept.interface import InterceptError
from oegw.keys import generate, write_private
from oegw.powers.dropping import keep_only
from oegw.settings import Settings

LONG, SHORT = 3600.0, 0.01
TEXT = (
    'version = 1\n[gateway]\nprivate_key = "gateway.pem"\nstate = "state.db"\n[dns]\ntries = {}\n'
)


class Box:
    """A daemon, as far as this is about it.  ``tries`` tells one configuration from another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []
        self.refuses = False
        self.breaks = False
        self.start()

    def start(self) -> None:
        self.settings = at_start(self.path).settings
        self.applying = Applying(
            self.path, self.settings, self.use, lambda _, text: self.told.append(text),
            asyncio.create_task,
        )  # fmt: skip

    async def use(self, settings: Settings) -> list[str]:
        if self.refuses:
            raise InterceptError("the kernel refuses")
        self.settings = settings
        if self.breaks:
            raise ValueError("behind the rules of the kernel")
        return ["a note", *self.applying.taken(settings)]

    async def reload(self) -> list[str]:
        return await self.use(await self.applying.read())

    def write(self, tries: int) -> None:
        self.path.write_text(TEXT.format(tries))

    @property
    def tries(self) -> int:
        return self.settings.dns.tries

    @property
    def state(self) -> str:
        return str(self.applying.row()["state"])

    async def apply(self, seconds: float | None = None) -> list[str]:
        return await self.applying.apply(str(self.path), seconds)

    async def until(self, state: str) -> None:
        async with asyncio.timeout(10):
            while self.state != state:
                await asyncio.sleep(0.002)


Story = Callable[[Box], Awaitable[None]]


def play(tmp_path: Path, story: Story) -> Box:
    path = tmp_path / "oegw.toml"
    path.write_text(TEXT.format(1))
    found: list[Box] = []

    async def body() -> None:
        found.append(Box(path))
        await story(found[0])

    asyncio.run(body())
    return found[0]


def test_for_good(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        assert await box.apply() == ["a note"]
        assert (box.tries, box.state) == (2, "in use")

    play(tmp_path, story)
    assert not record_file(tmp_path / "state.db").exists()


def test_without_confirmation_it_falls_back_and_the_file_stays(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        await box.apply(SHORT)
        assert box.tries == 2
        await box.until("refused")
        assert box.tries == 1
        assert "tries = 2" in box.path.read_text()
        [told] = box.told
        assert told.startswith(f"{box.path} was not confirmed")
        # neither a reload nor a restart takes it, but each says so
        assert "not confirmed" in (await box.reload())[-1]
        box.start()
        assert (box.tries, box.state) == (1, "refused")
        assert in_use(box.path).settings.dns.tries == 1  # for the daemons beside

    play(tmp_path, story)


def test_confirmed_it_stays(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        await box.apply(LONG)
        assert box.state == "on trial"
        assert 3500 < box.applying.row()["seconds_left"] <= LONG
        await box.applying.confirm()
        assert (box.tries, box.state) == (2, "in use")
        box.start()
        assert box.tries == 2
        with pytest.raises(ApplyError, match="no configuration is on trial"):
            await box.applying.confirm()

    assert play(tmp_path, story).told == []


def test_refused_it_falls_back_at_once(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        with pytest.raises(ApplyError, match="no configuration is on trial"):
            await box.applying.refuse()
        box.write(2)
        await box.apply(LONG)
        await box.applying.refuse()
        assert (box.tries, box.state) == (1, "refused")

    play(tmp_path, story)


@pytest.mark.parametrize("files_read_meanwhile", [False, True])
def test_a_daemon_that_dies_on_trial_starts_with_the_one_before(
    tmp_path: Path, files_read_meanwhile: bool
) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        await box.apply(LONG)
        if files_read_meanwhile:
            assert "on trial" in (await box.reload())[-1]
        assert in_use(box.path).settings.dns.tries == 2  # the daemons beside try it too
        box.start()
        assert (box.tries, box.state) == (1, "refused")
        assert "not confirmed" in box.applying.notes()[0]

    play(tmp_path, story)


def test_an_edited_file_is_another_one(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        await box.apply(LONG)
        await box.applying.refuse()
        box.write(3)
        assert await box.reload() == ["a note"]
        assert (box.tries, box.state) == (3, "in use")
        box.write(2)
        assert "not confirmed" in (await box.reload())[-1]
        box.write(4)
        box.start()
        assert (box.tries, box.state) == (4, "in use")
        box.write(2)  # the start has forgotten the old story
        assert await box.reload() == ["a note"]

    play(tmp_path, story)


def test_apply_takes_a_refused_one_all_the_same(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        await box.apply(LONG)
        await box.applying.refuse()
        await box.apply()
        assert (box.tries, box.state) == (2, "in use")
        box.start()
        assert box.tries == 2

    play(tmp_path, story)


def test_a_second_trial_falls_back_to_what_was_confirmed_last(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        await box.apply(LONG)
        with pytest.raises(ApplyError, match="on trial"):
            await box.apply()
        box.write(3)
        await box.apply(LONG)
        assert box.tries == 3
        await box.applying.refuse()
        assert box.tries == 1

    play(tmp_path, story)


def test_what_is_refused_by_the_kernel_changes_nothing(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        box.refuses = True
        for seconds in (None, LONG):
            with pytest.raises(InterceptError):
                await box.apply(seconds)
            assert (box.tries, box.state) == (1, "in use")
            assert not record_file(tmp_path / "state.db").exists()

    play(tmp_path, story)


def test_what_breaks_half_way_is_on_trial_all_the_same(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        box.breaks = True
        with pytest.raises(ValueError, match="behind the rules"):
            await box.apply(SHORT)
        assert (box.tries, box.state) == (2, "on trial")
        box.breaks = False
        await box.until("refused")
        assert box.tries == 1

    play(tmp_path, story)


def test_another_file_of_prefixes_is_tried_too(tmp_path: Path) -> None:
    prefixes = tmp_path / "denied.cidr"
    prefixes.write_text("192.0.2.0/24\n")
    rule = '[[rule]]\nname = "d"\ncategory = "deny"\ndestination_file = "denied.cidr"\n'

    async def story(box: Box) -> None:
        box.path.write_text(TEXT.format(1) + rule)
        await box.apply()
        assert "needs no trial" in (await box.apply(LONG))[-1]
        prefixes.write_text("0.0.0.0/1\n")
        await box.apply(SHORT)
        assert box.settings.rules[0].destination[0].prefixlen == 1
        await box.until("refused")
        assert box.settings.rules[0].destination[0].prefixlen == 24

    play(tmp_path, story)


def test_files_edited_and_read_during_a_trial_are_on_trial(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.write(2)
        await box.apply(LONG)
        box.write(3)
        assert "on trial" in (await box.reload())[-1]
        assert box.tries == 3
        box.start()  # after a crash
        assert (box.tries, box.state) == (1, "refused")

    play(tmp_path, story)


def test_a_start_without_room_for_the_record_ends_the_trial(
    tmp_path: Path, monkeypatch: Any
) -> None:
    def full(path: Path, record: Any) -> None:
        raise RecordError(f"{path}: No space left on device")

    async def story(box: Box) -> None:
        box.write(2)
        await box.apply(LONG)
        monkeypatch.setattr(applyrecord, "write", full)
        found = at_start(box.path)
        assert found.settings.dns.tries == 1
        assert "No space left on device; " in found.note
        assert "not confirmed" in found.note

    play(tmp_path, story)


def test_it_tries_to_fall_back_until_it_can(tmp_path: Path, monkeypatch: Any) -> None:
    async def story(box: Box) -> None:
        monkeypatch.setattr("oegw.applying.AGAIN", 0.01)
        box.write(2)
        await box.apply(SHORT)
        box.refuses = True
        async with asyncio.timeout(10):
            while len(box.told) < 2:
                await asyncio.sleep(0.002)
        assert all(each.startswith("can't fall back") for each in box.told)
        box.refuses = False
        await box.until("refused")
        assert box.tries == 1

    play(tmp_path, story)


def test_without_room_for_the_record_there_is_no_trial(tmp_path: Path, monkeypatch: Any) -> None:
    def full(path: Path, record: Any) -> None:
        raise RecordError(f"{path}: No space left on device")

    async def story(box: Box) -> None:
        monkeypatch.setattr(applyrecord, "write", full)
        box.write(2)
        with pytest.raises(ApplyError, match=r"state.db.unconfirmed: No space left on device"):
            await box.apply(LONG)
        assert box.tries == 1

    play(tmp_path, story)


def test_what_cannot_be_tried_is_told(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.path.write_text(TEXT.format(2).replace("state.db", "other.db"))
        with pytest.raises(ApplyError, match=r"gateway.state changed"):
            await box.apply(LONG)
        box.path.write_text("version = 1\n[dns]\ntries = 0\n")
        with pytest.raises(ConfigError, match=r"dns.tries: 0 is not within"):
            await box.apply(LONG)
        with pytest.raises(ApplyError, match="the running gateway has"):
            await box.applying.apply("/nowhere/oegw.toml", None)
        assert box.tries == 1

    play(tmp_path, story)


def test_the_same_once_more_needs_no_trial(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        assert "needs no trial" in (await box.apply(LONG))[-1]
        assert box.state == "in use"

    play(tmp_path, story)


def test_a_damaged_record_does_not_count_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "oegw.toml"
    path.write_text(TEXT.format(2))
    record_file(tmp_path / "state.db").write_text('{"before": []')
    found: InUse = in_use(path)
    assert found.settings.dns.tries == 2
    assert "state.db.unconfirmed: is damaged" in found.note


@pytest.mark.netns
def test_the_record_is_its_directory_s_owner_s(tmp_path: Path) -> None:
    """A start is root's, and the gateway that runs then is not."""
    os.chown(tmp_path, 65534, 65533)
    path = record_file(tmp_path / "state.db")
    applyrecord.write(path, applyrecord.Record("x", ((Path("/x"), ""),), True, 0.0))
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65533)


def test_the_record_is_a_secret_and_has_all_files(tmp_path: Path) -> None:
    directory = tmp_path / "oegw.d"
    directory.mkdir()
    (directory / "a.toml").write_text("[ike]\ndpd_tries = 7\n")

    async def story(box: Box) -> None:
        (directory / "a.toml").write_text("[ike]\ndpd_tries = 8\n")
        await box.apply(LONG)
        record = record_file(tmp_path / "state.db")
        assert record.stat().st_mode & 0o777 == 0o600
        assert box.settings.ike.dpd_tries == 8
        box.start()
        assert box.settings.ike.dpd_tries == 7

    play(tmp_path, story)


def test_check_tells_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_private(tmp_path / "gateway.pem", generate(2048))

    async def story(box: Box) -> None:
        box.path.write_text(TEXT.format(2) + '[interfaces]\noutside = "lo"\n')
        await box.apply(LONG)
        await box.applying.refuse()

    path = play(tmp_path, story).path
    cli.main(["check", "--config", str(path)])
    assert f"oegw: note: {path} was applied on " in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "number"), [(0o644, 0), (0o600, 1)])
def test_a_file_that_only_root_may_read_is_told_before_a_reload_fails(
    tmp_path: Path, mode: int, number: int
) -> None:
    """The start reads it as root, and a reload as whom the gateway has become."""

    async def story(box: Box) -> None:
        os.chown(box.path, 65534, 65534)
        box.path.chmod(mode)
        if (child := os.fork()) == 0:
            keep_only(())  # root without its powers is one of many
            notes = box.applying.notes()
            told = [each for each in notes if each.startswith(f"{box.path}: only root may read")]
            os._exit(100 + len(told) if told == notes else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 100 + number

    play(tmp_path, story)

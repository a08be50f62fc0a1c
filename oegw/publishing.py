"""The operator's side of the DNS: publish, withdraw, and change the gateway's key.

Commands that wait for name servers and for files; the running gateway has no part in it but to
read its key again (`oegw reload`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.errors import RecordError
from dnsrecords.published import MalformedTsigKey, PublishedRecord, TsigKey
from dnsrecords.resolver import system_resolvers
from dnsrecords.updater import UpdateError, Updater
from oegw.intercept.interface import Marks
from oegw.keys import KeyFileError, generate, read_private, write_private
from oegw.publish import records_of
from oegw.rollover import Rollover, RolloverError, Stage, fingerprint
from oegw.settings import Settings

MAX_FILE = 1 << 20  # octets of a state or of a TSIG key


class PublishingError(Exception):
    """What was asked for could not be done; the message names the file, the zone or the server."""


def updater_for(settings: Settings) -> Updater:
    """Who sends our updates.  Raises PublishingError for a TSIG key that can't be used."""
    publish = settings.publish
    key = None if publish.tsig_key is None else read_tsig_key(publish.tsig_key)
    # A gateway on this box must not trap what is needed to publish its own records.
    mark = Marks(settings.intercept.mark_mask).own if os.geteuid() == 0 else None
    resolvers = settings.dns.resolvers or tuple(system_resolvers())
    return Updater(resolvers, server=publish.server, key=key, mark=mark)


def read_tsig_key(path: Path) -> TsigKey:
    """The key that updates are signed with.  Raises PublishingError."""
    try:
        if path.stat().st_mode & 0o007:
            raise PublishingError(f"{path}: all users can get at the secret in it; chmod o= it")
        return TsigKey.parse(_read(path))
    except OSError as error:
        raise PublishingError(f"{path}: {error.strerror}") from error
    except MalformedTsigKey as error:
        raise PublishingError(f"{path}: {error}") from error


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_FILE).decode("utf-8", errors="replace")


def update(
    settings: Settings, records: Sequence[PublishedRecord], *, withdraw: bool
) -> Iterator[str]:
    """Add records to the DNS, or withdraw them; yields what was done.  Raises PublishingError."""
    updater = updater_for(settings)
    try:
        if withdraw:
            zones = updater.change((), records)
        else:
            zones = updater.change(records, ttl=settings.publish.ttl)
        for zone in zones:
            yield f"zone {zone.name} at {zone.primary}: {'withdrawn' if withdraw else 'published'}"
        absent = [] if withdraw else updater.absences(records)
    except UpdateError as error:
        raise PublishingError(str(error)) from error
    for server in dict.fromkeys(absence.server for absence in absent):
        yield f"{server} does not have all of it yet"


class KeyChange:
    """A change of the gateway's key, a step at a time.

    ``reload`` makes a running gateway read its key again, and raises if it refuses.
    """

    def __init__(self, settings: Settings, reload: Callable[[], None]) -> None:
        self._settings = settings
        self._reload = reload
        key = settings.gateway.private_key
        self._key = key
        self._next = key.with_name(f"{key.name}.next")
        self._state = key.with_name(f"{key.name}.rollover")

    def state(self) -> Rollover | None:
        """What is under way.  Raises PublishingError."""
        try:
            return Rollover.parse(_read(self._state))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PublishingError(f"{self._state}: {error.strerror}") from error
        except RolloverError as error:
            raise PublishingError(f"{self._state}: {error}") from error

    def advance(self, now: float, bits: int) -> Iterator[str]:
        """Take the steps that are due at ``now`` (seconds since 1970); yields what was done.

        The first call begins a change.  Raises PublishingError: then the step was not taken, and
        the next call tries it again.
        """
        with self._alone():
            try:
                state = self.state() or self._make(bits)
                if state.stage is Stage.MADE:
                    state = yield from self._publish(state, now)
                if state.stage is Stage.PUBLISHED and now >= state.due:
                    state = yield from self._use(state, now)
                if state.stage is Stage.USED and now >= state.due:
                    yield from self._withdraw(state)
            except (UpdateError, KeyFileError) as error:
                raise PublishingError(str(error)) from error
            except OSError as error:
                raise PublishingError(f"{error.filename}: {error.strerror}") from error

    def abandon(self) -> Iterator[str]:
        """Give up a change whose new key is not in use yet.  Raises PublishingError."""
        with self._alone():
            state = self.state()
            if state is None:
                raise PublishingError("no change of key is under way")
            try:
                if state.stage is Stage.USED or self._in_use(state):
                    raise PublishingError("the new key is in use already")
                self._unpublish(state)
                self._next.unlink(missing_ok=True)
                self._state.unlink()
            except (UpdateError, KeyFileError) as error:
                raise PublishingError(str(error)) from error
            except OSError as error:
                raise PublishingError(f"{error.filename}: {error.strerror}") from error
            yield "abandoned: the new key and its records are gone"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time: two would make two keys."""
        try:
            directory = os.open(self._key.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PublishingError(f"{self._key.parent}: {error.strerror}") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise PublishingError(f"{self._key}: another oegw rollover is at work") from None
        finally:
            os.close(directory)

    def _records(self, key: rsa.RSAPublicKey) -> tuple[PublishedRecord, ...]:
        gateway, publish = self._settings.gateway, self._settings.publish
        fqdn = gateway.identity if isinstance(gateway.identity, str) else gateway.fqdn
        if not gateway.addresses and fqdn is None:
            raise PublishingError("gateway.addresses: is needed to know which records are ours")
        addresses, clients, precedence = gateway.addresses, publish.clients, publish.precedence
        ipseckey = publish.ipseckey
        try:
            return tuple(records_of(key, addresses, fqdn, clients, precedence, ipseckey=ipseckey))
        except RecordError as error:
            raise PublishingError(str(error)) from error

    def _make(self, bits: int) -> Rollover:
        old = read_private(self._key).public_key()
        added_for = generate(bits)
        state = Rollover(
            Stage.MADE,
            fingerprint(old),
            fingerprint(added_for.public_key()),
            self._records(old),
            self._records(added_for.public_key()),
        )
        write_private(self._next, added_for, force=True)
        self._save(state)
        return state

    def _publish(self, state: Rollover, now: float) -> Generator[str, None, Rollover]:
        updater = updater_for(self._settings)
        holding = max(state.holding, updater.holding_time(state.added))
        state = replace(state, holding=holding)
        self._save(state)  # before the records are there: afterwards their own lifetime is seen
        for zone in updater.change(state.added, ttl=self._settings.publish.ttl):
            yield f"zone {zone.name} at {zone.primary}: records of the new key added"
        if absent := updater.absences(state.added):
            servers = ", ".join(dict.fromkeys(str(absence.server) for absence in absent))
            yield f"waiting for {servers} to have them"
            return state
        wait = max(holding, self._settings.publish.ttl)
        state = replace(state, stage=Stage.PUBLISHED, due=now + wait)
        self._save(state)
        yield f"published: the new key may be used in {wait} s"
        return state

    def _unpublish(self, state: Rollover) -> None:
        """A zone that takes no updates has not taken the new key's records either: look."""
        updater = updater_for(self._settings)
        try:
            updater.change((), state.added)
        except UpdateError as error:
            try:
                looked = sum(len(updater.zone_of(record).servers) for record in state.added)
                if len(updater.absences(state.added)) == looked:
                    return
            except UpdateError:
                pass  # the first error says more
            raise PublishingError(
                f"{error}; the new key's records may be in the DNS: {self._next} and "
                f"{self._state} stay"
            ) from error

    def _check_present(self, updater: Updater, state: Rollover, otherwise: str) -> None:
        """Raises PublishingError if a server does not have the new records any more."""
        if absent := updater.absences(state.added):
            raise PublishingError(
                f"{absent[0].server}: the record of {absent[0].record.owner} is gone again: "
                f"{otherwise}"
            )

    def _in_use(self, state: Rollover) -> bool:
        return fingerprint(read_private(self._key).public_key()) == state.new

    def _use(self, state: Rollover, now: float) -> Generator[str, None, Rollover]:
        updater = updater_for(self._settings)
        self._check_present(updater, state, "the new key is not used")
        if not self._in_use(state):
            new = read_private(self._next)
            if fingerprint(new.public_key()) != state.new:
                raise PublishingError(f"{self._next}: is not the key that was published")
            self._next.replace(self._key)
        self._reload()
        wait = max(state.holding, self._settings.publish.ttl)
        state = replace(state, stage=Stage.USED, due=now + wait)
        self._save(state)
        yield f"used: the gateway signs with the new key; the old one may be withdrawn in {wait} s"
        return state

    def _withdraw(self, state: Rollover) -> Iterator[str]:
        if not self._in_use(state):
            raise PublishingError(
                f"{self._key}: is not the new key any more: the old records are not withdrawn"
            )
        updater = updater_for(self._settings)
        self._check_present(updater, state, "the old ones are not withdrawn")
        removals = [record for record in state.withdrawn if record not in state.added]
        for zone in updater.change((), removals):
            yield f"zone {zone.name} at {zone.primary}: records of the old key withdrawn"
        self._state.unlink()
        yield "over"

    def _save(self, state: Rollover) -> None:
        temporary = self._state.with_name(f".{self._state.name}.new")
        with suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(state.serialize())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._state)

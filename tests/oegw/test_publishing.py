"""`oegw dns-records --update` and `oegw rollover`, against BIND, with a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import oegw.publishing as publishing
from dnsrecords.published import PublishedRecord, TsigKey
from dnsrecords.updater import Updater
from oegw import cli
from oegw.keys import generate, read_private, write_private
from oegw.publish import records_of, sst_records_of
from oegw.publishing import KeyChange, PublishingError, update
from oegw.rollover import Rollover, RolloverError, Stage, fingerprint
from oegw.settings import DnsSettings, GatewaySettings, PublishSettings, Settings
from oegw.sst import keys as sst
from tests.support.named import LOOPBACK, Named
from tests.support.sst_keys import public_key as sst_public_key

SG_A, ALICE = IPv4Address("192.1.1.4"), IPv4Address("192.1.0.65")
ALGORITHMS = ("aes128", "aes256")
ZONES = ["1.1.192.in-addr.arpa.", "0.1.192.in-addr.arpa.", "example."]
TTL = 300
BITS = 2048  # quick to make


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    records = {"example.": ["ns.example. A 127.0.0.1"]}
    with Named(tmp_path_factory.mktemp("publishing"), ZONES, records) as server:
        yield server


@pytest.fixture
def settings(named: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    path = tmp_path / "gateway.pem"
    write_private(path, generate(BITS))
    settings = Settings(
        gateway=GatewaySettings(addresses=(SG_A,), private_key=path),
        dns=DnsSettings(resolvers=(IPv4Address(LOOPBACK),)),
        publish=PublishSettings(clients=(ALICE,), ttl=TTL, tsig_key=named.key_file),
    )

    def at_our_port(given: Settings) -> Updater:
        key = TsigKey.parse(named.key_file.read_text())
        return Updater(given.dns.resolvers, key=key, port=named.port)

    monkeypatch.setattr(publishing, "updater_for", at_our_port)
    yield settings
    at_our_port(settings).change((), records(settings, public_key(path)))


def public_key(path: Path) -> rsa.RSAPublicKey:
    return read_private(path).public_key()


def records(settings: Settings, key: rsa.RSAPublicKey) -> list[PublishedRecord]:
    return records_of(key, [SG_A], None, [ALICE], 10)


def published(settings: Settings, key: rsa.RSAPublicKey) -> bool:
    """Whether all of a key's records are there; else none of them must be."""
    updater = publishing.updater_for(settings)
    wanted = records(settings, key)
    absent = updater.absences(wanted)
    assert len(absent) in (0, len(wanted))
    return not absent


def test_update_and_withdraw(settings: Settings) -> None:
    key = public_key(settings.gateway.private_key)
    lines = list(update(settings, records(settings, key), withdraw=False))
    assert sorted(lines) == [
        f"zone 0.1.192.in-addr.arpa. at {LOOPBACK}: published",
        f"zone 1.1.192.in-addr.arpa. at {LOOPBACK}: published",
    ]
    assert published(settings, key)
    list(update(settings, records(settings, key), withdraw=True))
    assert not published(settings, key)


def sst_records(number: int, fqdn: str | None = "sg-a.example") -> list[PublishedRecord]:
    public = sst_public_key(number)
    return sst_records_of(public, ALGORITHMS, [SG_A], fqdn, [ALICE], 10)


def there(settings: Settings, wanted: list[PublishedRecord]) -> bool:
    """Whether all of these records are there; else none of them must be."""
    absent = publishing.updater_for(settings).absences(wanted)
    assert len(absent) in (0, len(wanted))
    return not absent


def test_sst32_keys_for_port_encryption_are_published_and_withdrawn(settings: Settings) -> None:
    wanted = sst_records(1)
    assert len(wanted) == 6
    assert {record.owner for record in wanted} == {
        "4.1.1.192.in-addr.arpa.", "65.0.1.192.in-addr.arpa.", "_sst.sg-a.example.",
    }  # fmt: skip
    both = [*records(settings, public_key(settings.gateway.private_key)), *wanted]
    lines = list(update(settings, both, withdraw=False))
    assert sorted(line.split()[1] for line in lines) == sorted(ZONES)
    assert there(settings, wanted)
    list(update(settings, both, withdraw=True))
    assert not there(settings, wanted)


def test_sst35_the_old_key_stays_published_beside_the_new_one(settings: Settings) -> None:
    old, new = sst_records(1), sst_records(2)
    list(update(settings, old, withdraw=False))
    list(update(settings, new, withdraw=False))
    assert there(settings, old)
    assert there(settings, new)
    list(update(settings, old, withdraw=True))
    assert not there(settings, old)
    assert there(settings, new)
    list(update(settings, new, withdraw=True))


def test_sst35_a_change_of_key_as_the_manual_tells_it(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """keygen, --update, keygen --roll, --update, and at last --withdraw --old-sst-keys."""
    directory = settings.gateway.private_key.parent
    text = (
        f'version = 1\n[gateway]\naddresses = "{SG_A}"\nprivate_key = "gateway.pem"\n'
        f'fqdn = "sg-a.example"\n[dns]\nresolvers = "{LOOPBACK}"\n[publish]\n'
        f'clients = "{ALICE}"\n[sst]\nprivate_key = "sst.pem"\n'
    )
    config = directory / "oegw.toml"
    config.write_text(text)

    def oegw(*arguments: str) -> None:
        assert cli.main([*arguments, "--config", str(config)]) == 0, capsys.readouterr().err

    def records_at(path: Path) -> list[PublishedRecord]:
        public = sst.read_private(path).public
        return sst_records_of(public, ALGORITHMS, [SG_A], "sg-a.example", [ALICE], 10)

    oegw("sst", "keygen")
    oegw("dns-records", "--update")
    oegw("sst", "keygen", "--roll")
    config.write_text(text + 'old_keys = ["sst.pem.old"]\n')
    oegw("dns-records", "--update")
    old, new = records_at(directory / "sst.pem.old"), records_at(directory / "sst.pem")
    assert there(settings, old)
    assert there(settings, new)
    oegw("dns-records", "--withdraw", "--old-sst-keys")
    assert not there(settings, old)
    assert there(settings, new)
    assert published(settings, public_key(settings.gateway.private_key)), "not these"
    oegw("dns-records", "--withdraw")
    assert not there(settings, new)


def test_a_rollover_leaves_keys_for_port_encryption_alone(settings: Settings) -> None:
    path = settings.gateway.private_key
    wanted = sst_records(1)
    both = [*records(settings, public_key(path)), *wanted]
    list(update(settings, both, withdraw=False))
    change, now = KeyChange(settings, lambda: None), 0.0
    for _ in range(3):
        now += TTL
        lines = list(change.advance(now, BITS))
        assert there(settings, wanted)
    assert lines[-1] == "over"
    list(update(settings, wanted, withdraw=True))


def test_a_change_of_key_from_beginning_to_end(settings: Settings) -> None:
    path = settings.gateway.private_key
    old = public_key(path)
    list(update(settings, records(settings, old), withdraw=False))
    reloads: list[str] = []

    def reload() -> None:
        reloads.append(fingerprint(public_key(path)))

    change = KeyChange(settings, reload)
    lines = list(change.advance(1000.0, BITS))
    assert lines[-1] == f"published: the new key may be used in {TTL} s"
    new = public_key(path.with_name("gateway.pem.next"))
    assert published(settings, old)
    assert published(settings, new)
    assert fingerprint(public_key(path)) == fingerprint(old)

    # A resolver may have asked just before, and believe for TTL seconds that there is one key.
    assert not list(change.advance(1000.0 + TTL - 1, BITS))
    assert not reloads
    assert "used" in list(change.advance(1000.0 + TTL, BITS))[-1]
    assert reloads == [fingerprint(new)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert published(settings, old)

    assert not list(change.advance(1000.0 + 2 * TTL - 1, BITS))
    assert list(change.advance(1000.0 + 2 * TTL, BITS))[-1] == "over"
    assert not published(settings, old)
    assert published(settings, new)
    assert change.state() is None
    assert sorted(p.name for p in path.parent.iterdir()) == ["gateway.pem"]


def test_a_crash_between_the_steps_loses_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the writes of the state is lost once; the next call goes on all the same."""
    path = settings.gateway.private_key
    old = public_key(path)
    list(update(settings, records(settings, old), withdraw=False))
    reloads: list[None] = []
    save = KeyChange._save
    crashed: set[tuple[Stage, bool]] = set()

    class Crash(Exception):  # noqa: N818
        pass

    def crashing(self: KeyChange, state: Rollover) -> None:
        step = (state.stage, state.holding > 0)
        if step not in crashed:
            crashed.add(step)
            raise Crash
        save(self, state)

    monkeypatch.setattr(KeyChange, "_save", crashing)
    change, now = KeyChange(settings, lambda: reloads.append(None)), 0.0
    for _ in range(30):
        now += TTL
        try:
            lines = list(change.advance(now, BITS))
        except Crash:
            continue
        if lines and lines[-1] == "over":
            break
    else:
        pytest.fail("it never came to an end")
    assert len(crashed) == 4
    assert reloads
    assert fingerprint(public_key(path)) != fingerprint(old)
    assert published(settings, public_key(path))
    assert not published(settings, old)


def test_the_new_key_is_not_used_if_its_records_are_gone_again(settings: Settings) -> None:
    path = settings.gateway.private_key
    old = public_key(path)
    change = KeyChange(settings, lambda: None)
    list(change.advance(0.0, BITS))
    new = public_key(path.with_name("gateway.pem.next"))
    publishing.updater_for(settings).change((), records(settings, new))
    with pytest.raises(PublishingError, match="is gone again: the new key is not used"):
        list(change.advance(TTL, BITS))
    assert fingerprint(public_key(path)) == fingerprint(old)


def test_the_old_records_stay_while_the_new_ones_do_not(settings: Settings) -> None:
    path = settings.gateway.private_key
    old = public_key(path)
    list(update(settings, records(settings, old), withdraw=False))
    before = path.read_bytes()
    change = KeyChange(settings, lambda: None)
    list(change.advance(0.0, BITS))
    list(change.advance(TTL, BITS))
    new, after = public_key(path), path.read_bytes()
    publishing.updater_for(settings).change((), records(settings, new))
    with pytest.raises(PublishingError, match="gone again: the old ones are not withdrawn"):
        list(change.advance(2 * TTL, BITS))
    list(update(settings, records(settings, new), withdraw=False))
    path.write_bytes(before)  # the operator has gone back
    with pytest.raises(PublishingError, match="is not the new key any more"):
        list(change.advance(2 * TTL, BITS))
    assert published(settings, old)
    path.write_bytes(after)
    assert list(change.advance(2 * TTL, BITS))[-1] == "over"
    assert not published(settings, old)


def test_abandoning_without_a_key_is_told(settings: Settings) -> None:
    change = KeyChange(settings, lambda: None)
    list(change.advance(0.0, BITS))
    path = settings.gateway.private_key
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(PublishingError, match=r"gateway\.pem"):
        list(change.abandon())
    write_private(path, generate(BITS))
    path.write_bytes(kept)
    list(change.abandon())


def test_ipseckey_records_are_changed_with_the_others(settings: Settings) -> None:
    """Else those who read nothing else would be left with the old key."""
    settings = replace(settings, publish=replace(settings.publish, ipseckey=True))
    change = KeyChange(settings, lambda: None)
    list(change.advance(0.0, BITS))
    state = change.state()
    assert state is not None
    of_key = [r.owner for r in state.added if r.rdtype == "IPSECKEY"]
    assert of_key == ["4.1.1.192.in-addr.arpa.", "65.0.1.192.in-addr.arpa."]
    assert not publishing.updater_for(settings).absences(state.added)
    list(change.abandon())
    large = replace(settings, publish=replace(settings.publish, precedence=256))
    with pytest.raises(PublishingError, match="precedence 256"):
        list(KeyChange(large, lambda: None).advance(0.0, BITS))


def test_a_gateway_that_refuses_the_new_key_is_asked_again(settings: Settings) -> None:
    path = settings.gateway.private_key
    answers = [PublishingError("the configuration is wrong"), None]

    def reload() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    change = KeyChange(settings, reload)
    list(change.advance(0.0, BITS))
    with pytest.raises(PublishingError, match="the configuration is wrong"):
        list(change.advance(TTL, BITS))
    state = change.state()
    assert state is not None
    assert state.stage is Stage.PUBLISHED
    assert "used" in list(change.advance(TTL, BITS))[-1]
    assert not answers
    assert published(settings, public_key(path))


def test_abandoned_before_it_is_used_and_not_after(settings: Settings) -> None:
    path = settings.gateway.private_key
    old = public_key(path)
    change = KeyChange(settings, lambda: None)
    list(change.advance(0.0, BITS))
    new = public_key(path.with_name("gateway.pem.next"))
    assert list(change.abandon()) == ["abandoned: the new key and its records are gone"]
    assert not published(settings, new)
    assert fingerprint(public_key(path)) == fingerprint(old)
    assert change.state() is None
    with pytest.raises(PublishingError, match="no change of key is under way"):
        list(change.abandon())
    list(change.advance(0.0, BITS))
    list(change.advance(TTL, BITS))
    with pytest.raises(PublishingError, match="in use already"):
        list(change.abandon())


def without_key(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """From now on the zones take no updates of ours."""
    monkeypatch.setattr(
        publishing,
        "updater_for",
        lambda given: Updater(given.dns.resolvers, port=port, timeout=0.5),
    )


def test_abandoned_where_the_zones_never_took_it(
    settings: Settings, named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings.gateway.private_key
    change = KeyChange(settings, lambda: None)
    without_key(monkeypatch, named.port)
    with pytest.raises(PublishingError, match="REFUSED"):
        list(change.advance(0.0, BITS))
    assert list(change.abandon()) == ["abandoned: the new key and its records are gone"]
    assert change.state() is None
    assert not path.with_name("gateway.pem.next").exists()


def test_not_abandoned_while_its_records_may_be_there(
    settings: Settings, named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings.gateway.private_key
    change = KeyChange(settings, lambda: None)
    list(change.advance(0.0, BITS))
    for port in (named.port, 1):  # refused; nobody there
        with monkeypatch.context() as patched:
            without_key(patched, port)
            with pytest.raises(PublishingError, match=r"may be in the DNS: .*gateway\.pem\.next"):
                list(change.abandon())
        assert path.with_name("gateway.pem.next").exists()
    list(change.abandon())


def test_ipseckey_records_change_with_the_others(settings: Settings) -> None:
    path = settings.gateway.private_key
    settings = replace(settings, publish=replace(settings.publish, ipseckey=True))

    def present(key: rsa.RSAPublicKey) -> set[str]:
        wanted = records_of(key, [SG_A], None, [ALICE], 10, ipseckey=True)
        absent = [absence.record for absence in publishing.updater_for(settings).absences(wanted)]
        return {record.rdtype for record in wanted if record not in absent}

    old = public_key(path)
    list(
        update(settings, records_of(old, [SG_A], None, [ALICE], 10, ipseckey=True), withdraw=False)
    )
    change = KeyChange(settings, lambda: None)
    list(change.advance(0.0, BITS))
    new = public_key(path.with_name("gateway.pem.next"))
    assert present(old) == present(new) == {"KEY", "TXT", "IPSECKEY"}
    list(change.advance(TTL, BITS))
    list(change.advance(2 * TTL, BITS))
    assert (present(old), present(new)) == (set(), {"KEY", "TXT", "IPSECKEY"})
    list(update(settings, records_of(new, [SG_A], None, [ALICE], 10, ipseckey=True), withdraw=True))


def test_one_at_a_time(settings: Settings) -> None:
    change = KeyChange(settings, lambda: None)
    with (
        change._alone(),
        pytest.raises(PublishingError, match="another oegw rollover is at work"),
    ):
        list(KeyChange(settings, lambda: None).advance(0.0, BITS))


def test_a_state_that_is_damaged_is_named(settings: Settings) -> None:
    state = settings.gateway.private_key.with_name("gateway.pem.rollover")
    state.write_text('{"version": 1}')
    with pytest.raises(PublishingError, match=r"gateway\.pem\.rollover: is not the state"):
        list(KeyChange(settings, lambda: None).advance(0.0, BITS))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "stage": 3}'])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(RolloverError):
        Rollover.parse(text)


def test_the_state_survives_its_file(settings: Settings) -> None:
    key = public_key(settings.gateway.private_key)
    both = tuple(records(settings, key))
    state = Rollover(Stage.PUBLISHED, "00", "11", both, both[:1], 60, 12.5)
    assert Rollover.parse(state.serialize()) == state
    assert "may be used in 2 s" in replace(state, due=102.0).text(100.0)


def test_a_tsig_key_that_all_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "update.key"
    path.write_text("key x { algorithm hmac-sha256; secret c2VjcmV0; };")
    path.chmod(0o644)
    with pytest.raises(PublishingError, match=r"update\.key: all users can get at the secret"):
        publishing.updater_for(Settings(publish=PublishSettings(tsig_key=path)))
    path.chmod(0o640)
    publishing.updater_for(Settings(publish=PublishSettings(tsig_key=path)))

"""Keys in the store, and what a request's secret may do by the list of them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from strata.cli.main import app
from strata.cli.operations.keys import changed_quotas, expiry_of
from strata.core import DEFAULT_TENANT, NO_QUOTAS, Quotas
from strata.errors import DamagedFile, InvalidInput
from strata.keys import OPEN, Access, KeyRefused, KeyRing, Scope, StoredKeys, UnknownKey
from strata.keys.key_ring import FRESH_SECONDS, MISS_SECONDS, STALE_SECONDS
from strata.store.store import Store

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Clock:
    """Seconds that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def refusal(ring: KeyRing, *secrets: str) -> str:
    """The reason for which a request with these secrets is refused."""
    with pytest.raises(KeyRefused) as caught:
        ring.find([secret.encode() for secret in secrets])
    return caught.value.reason


def test_the_secret_is_nowhere_in_the_store(store: Store) -> None:
    keys = StoredKeys(store)
    key, secret = keys.create("a pipeline", [Scope.SUBMIT, Scope.SUBMIT], "team-a", NOW)
    assert re.fullmatch(r"strata_[A-Za-z0-9_-]{43}", secret)
    assert key.scopes == (Scope.SUBMIT,) and key.tenant == "team-a" and key.expires_at == NOW
    files = [path.read_bytes() for path in Path(store.root).rglob("*") if path.is_file()]
    assert files and not any(secret.encode() in content or secret[7:].encode() in content for content in files)
    # another process reads the same
    assert StoredKeys(store).all() == ([key], []) and StoredKeys(store).exist()


def test_revoking_is_for_good_and_can_be_repeated(store: Store) -> None:
    keys, other = StoredKeys(store), StoredKeys(store)
    key, _ = keys.create("one", [Scope.READ])
    assert [one.status() for one in other.all()[0]] == ["active"]
    first = keys.revoke(key.id)
    assert keys.revoke(key.id).revoked_at == first.revoked_at
    assert [one.status() for one in other.all()[0]] == ["revoked"]
    for wrong in ("0" * 12, "../../jobs", "", key.id.upper() + "x"):
        with pytest.raises(UnknownKey):
            keys.revoke(wrong)


def test_a_damaged_key_is_worth_nothing_and_hides_no_other(store: Store) -> None:
    keys = StoredKeys(store)
    good, _ = keys.create("good", [Scope.READ])
    bad, secret = keys.create("bad", [Scope.READ])
    path = Path(store.path("keys", f"{bad.id}.json"))
    path.write_text(path.read_text(encoding="utf-8").replace('"read"', '"everything"'), encoding="utf-8")
    # a file of another name is none of ours, one with the id of another key is damaged
    (path.parent / "note.txt").write_text("x", encoding="utf-8")
    (path.parent / f"{'0' * 12}.json").write_bytes(Path(store.path("keys", f"{good.id}.json")).read_bytes())
    found, faults = StoredKeys(store).all()
    assert [key.id for key in found] == [good.id] and len(faults) == 2
    assert all(isinstance(fault, DamagedFile) for fault in faults)
    # a mark of revocation that cannot be read revokes, too
    Path(store.path("keys", f"{good.id}.revoked")).write_text("?", encoding="utf-8")
    assert StoredKeys(store).all()[0][0].status() == "revoked"
    assert refusal(KeyRing(StoredKeys(store), None), secret) == "unauthorized"


def test_what_a_key_may(store: Store) -> None:
    ring, keys = KeyRing(StoredKeys(store), None), StoredKeys(store)
    secrets = {scope: keys.create(scope.value, [scope], "team-a")[1] for scope in Scope}
    found = {scope: ring.find([b"", secret.encode()]) for scope, secret in secrets.items()}
    own = {scope: {other for other in Scope if access.may([other])} for scope, access in found.items()}
    assert own == {
        Scope.SUBMIT: {Scope.SUBMIT},
        Scope.READ: {Scope.READ},
        Scope.REVIEW: {Scope.REVIEW, Scope.READ},
        Scope.ADMIN: set(Scope),
    }
    # admin of another tenant than default sees its own only; what belongs to nobody is the operator's
    admin = found[Scope.ADMIN]
    assert [admin.sees(name) for name in ("team-a", "team-b", DEFAULT_TENANT, "")] == [True, False, False, False]
    reader = Access("x", DEFAULT_TENANT, frozenset({Scope.READ}))
    assert reader.only_tenant == DEFAULT_TENANT and not reader.sees("team-a") and not reader.sees("")
    assert OPEN.only_tenant is None and OPEN.sees("team-a") and OPEN.sees("")


def test_the_list_is_read_again_in_time(store: Store) -> None:
    clock = Clock()
    ring, keys = KeyRing(StoredKeys(store), None, clock=clock), StoredKeys(store)
    assert ring.known([]) is None  # nothing was read yet
    assert ring.find([]) is OPEN and ring.known([b"any"]) is OPEN
    key, secret = keys.create("new", [Scope.READ])
    _, another = keys.create("other", [Scope.READ], expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert ring.find([]) is OPEN  # not known yet
    clock.now += FRESH_SECONDS
    assert ring.known([secret.encode()]) is None
    assert ring.find([secret.encode()]).key_id == key.id
    assert refusal(ring) == "unauthorized" and refusal(ring, another) == "key-expired"
    # a secret that is not in the list is looked for sooner
    later, fresh = keys.create("later", [Scope.READ])
    assert refusal(ring, fresh) == "unauthorized"
    clock.now += MISS_SECONDS
    assert ring.find([fresh.encode()]).key_id == later.id
    keys.revoke(key.id)
    assert ring.find([secret.encode()]).key_id == key.id
    clock.now += FRESH_SECONDS
    assert refusal(ring, secret) == "key-revoked"
    # who removes all keys does not open the service
    for path in Path(store.path("keys")).iterdir():
        path.unlink()
    clock.now += FRESH_SECONDS
    assert refusal(ring) == "unauthorized" and refusal(ring, fresh) == "unauthorized"


def test_the_operator_needs_no_store_and_closes_the_service(store: Store) -> None:
    ring = KeyRing(StoredKeys(store), "sésame")
    assert ring.known(["sésame".encode()]) == ring.find(["sésame".encode()])
    assert ring.find(["sésame".encode()]).is_operator
    assert refusal(ring) == "unauthorized" and refusal(ring, "sesame") == "unauthorized"
    assert refusal(KeyRing(StoredKeys(store), None, closed=True)) == "unauthorized"


def test_a_store_that_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    keys = StoredKeys(store)
    _, secret = keys.create("a", [Scope.READ])
    ring, unread = KeyRing(keys, None, clock=clock), KeyRing(keys, None, clock=clock)
    assert ring.find([secret.encode()]).may([Scope.READ])

    def away() -> None:
        raise OSError(5, "away")

    monkeypatch.setattr(keys, "all", away)
    # what was read is believed for a while; what was never read opens nothing
    clock.now += FRESH_SECONDS
    assert ring.find([secret.encode()]).may([Scope.READ])
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            unread.find([secret.encode()])
    clock.now += STALE_SECONDS
    with pytest.raises(OSError, match="away"):
        ring.find([secret.encode()])


def test_whether_an_access_still_holds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    keys = StoredKeys(store)
    ring, closed = KeyRing(keys, None, clock=clock), KeyRing(keys, "operator", clock=clock)
    assert ring.holds(OPEN) is None and ring.find([]) is OPEN and ring.holds(OPEN) is True
    operator = closed.find([b"operator"])
    assert closed.holds(operator) is True  # without a look at the store
    key, secret = keys.create("a", [Scope.READ])
    _, passing = keys.create("b", [Scope.READ], expires_at=datetime.now(UTC) + timedelta(seconds=0.2))
    clock.now += FRESH_SECONDS
    assert ring.holds(OPEN) is None
    ring.renew()
    # the service has become one that needs a key
    assert ring.holds(OPEN) is False
    access, short = ring.find([secret.encode()]), ring.find([passing.encode()])
    time.sleep(0.25)
    assert ring.holds(access) is True and ring.holds(short) is False
    keys.revoke(key.id)
    assert ring.holds(access) is True
    clock.now += FRESH_SECONDS
    assert ring.holds(access) is None
    ring.renew()
    assert ring.holds(access) is False

    def away() -> None:
        raise OSError(5, "away")

    monkeypatch.setattr(keys, "all", away)
    clock.now += FRESH_SECONDS
    ring.renew()  # the last list is believed
    assert ring.holds(access) is False
    clock.now += STALE_SECONDS
    with pytest.raises(OSError, match="away"):
        ring.renew()


# quotas


def test_quotas_are_changed_without_losing_a_change(store: Store) -> None:
    keys, other = StoredKeys(store), StoredKeys(store)
    key, secret = keys.create("a", [Scope.READ], quotas=Quotas(images_a_day=5))
    ring = KeyRing(StoredKeys(store), None)
    assert ring.find([secret.encode()]).quotas == Quotas(images_a_day=5)
    assert other.all()[0][0].quotas.images_a_day == 5

    def change(name: str, number: int) -> Callable[[Quotas], Quotas]:
        return lambda before: before.model_copy(update={name: number})

    # two processes change different quotas at the same time
    with ThreadPoolExecutor(8) as pool:
        names = ("requests_a_minute", "images_a_day", "chunks_queued", "bytes_stored")
        list(pool.map(lambda name: StoredKeys(store).limit(key.id, change(name, 7)), names))
    wanted = Quotas(requests_a_minute=7, images_a_day=7, chunks_queued=7, bytes_stored=7)
    assert [keys.all()[0][0].quotas, other.all()[0][0].quotas] == [wanted, wanted]
    assert keys.limit(key.id, lambda _: NO_QUOTAS).quotas == NO_QUOTAS
    assert keys.revoke(key.id).quotas == NO_QUOTAS
    with pytest.raises(UnknownKey):
        keys.limit("0" * 12, lambda before: before)


def test_a_key_with_damaged_quotas_is_worth_nothing(store: Store) -> None:
    keys = StoredKeys(store)
    key, secret = keys.create("a", [Scope.READ])
    keys.limit(key.id, lambda _: Quotas(images_a_day=5))
    Path(store.path("keys", f"{key.id}.000001.quotas")).write_text('{"images_a_day": "many"}', encoding="utf-8")
    found, (fault,) = StoredKeys(store).all()
    assert found == [] and "000001.quotas" in str(fault)
    assert refusal(KeyRing(StoredKeys(store), None), secret) == "unauthorized"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("images_a_day", "1,000", 1000),
        ("images_a_day", "None", None),
        ("bytes_stored", "10GB", 10**10),
        ("bytes_stored", "1.5 GiB", 3 * 2**29),
        ("bytes_stored", "500", 500),
        ("bytes_stored", "2kB", 2000),
        ("money_a_day", "2.5", 2.5),
    ],
)
def test_a_quota(name: str, text: str, value: float | None) -> None:
    assert getattr(changed_quotas({name: text}, Quotas(images_a_day=5)), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("images_a_day", "0"),
        ("images_a_day", "-1"),
        ("images_a_day", "1.5"),
        ("images_a_day", "many"),
        ("images_a_day", ""),
        ("images_a_day", "9" * 5000),
        ("bytes_stored", "10 XB"),
        ("bytes_stored", "9999999TB"),
        ("money_a_day", "nan"),
        ("money_a_day", "inf"),
        ("requests_a_minute", "1e3"),
    ],
)
def test_a_quota_that_is_none(name: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=f"--{name.replace('_', '-')} ") as caught:
        changed_quotas({name: text}, NO_QUOTAS)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("8w", NOW + timedelta(weeks=8)),
        ("2027-01-31", datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("20270131", datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("2026-11-29", datetime(2026, 11, 29, 23, 59, 59, tzinfo=UTC)),
        ("9999-12-31", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2027-01-31T10:00:00+02:00", datetime(2027, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_expiry(text: str, end: datetime) -> None:
    assert expiry_of(text, NOW) == end


@pytest.mark.parametrize(
    "text", ["", "0d", "30", "d", "-1d", "30 days", "2026-11-28", "20261128", "31.01.2027", "2027-13-01", "99999w9"]
)
def test_an_expiry_that_is_none(text: str) -> None:
    with pytest.raises(InvalidInput, match="--expires"):
        expiry_of(text, NOW)


def test_the_commands(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["keys", *arguments, "--store", str(tmp_path / "store")])
        return result.exit_code, result.stdout, result.stderr

    code, secret, told = run(
        "create", "nightly import", "--scopes", "submit,read", "--tenant", "vision", "--expires", "30d"
    )
    assert code == 0 and re.fullmatch(r"strata_\S{43}\n", secret) and secret.strip() not in told
    made = json.loads(run("create", "Ada", "--scopes", "review", "--json")[1])
    assert made["tenant"] == "default" and made["expires_at"] is None and "sha256" not in made
    assert StoredKeys(Store(str(tmp_path / "store"))).all()[0][1].sha256 != made["secret"]
    assert run("revoke", made["id"])[0] == 0
    listed = json.loads(run("list", "--json")[1])
    assert [one["status"] for one in listed] == ["active", "revoked"] and "secret" not in listed[0]
    assert run("create", "x", "--expires", "2099-01-31")[0] == 0
    table = run("list")[1]
    assert "  2099-01-31T23:59Z  active" in table
    assert max(map(len, table.splitlines())) <= 80 and "nightly import" in table and secret.strip() not in table
    for wrong in (
        ["create", "x", "--scopes", "all"],
        ["create", "x", "--scopes", ","],
        ["create", "x", "--tenant", "Team A"],
        ["create", "x", "--expires", "yesterday"],
        ["create", " "],
        ["create", "a\nb"],
    ):
        code, out, told = run(*wrong)
        assert code == 2 and not out and told.count("\n") == 1, (wrong, told)
    # quotas
    limited = json.loads(run("create", "a", "--images-a-day", "100", "--bytes-stored", "2GB", "--json")[1])
    assert limited["quotas"]["images_a_day"] == 100 and limited["quotas"]["bytes_stored"] == 2 * 10**9
    code, out, _ = run("limit", limited["id"], "--bytes-stored", "none", "--requests-a-minute", "60")
    assert code == 0 and out.endswith("(a): 60 requests/min, 100 images/day\n")
    assert "100 images/day" in run("list")[1]
    for wrong in (["limit", limited["id"]], ["limit", limited["id"], "--images-a-day", "0"], ["limit", made["id"]]):
        code, out, told = run(*wrong)
        assert code == 2 and not out and told.count("\n") == 1, (wrong, told)
    assert run("limit", "0" * 12, "--images-a-day", "1")[0] == 10
    assert run("revoke", "0" * 12)[0] == 10 and len(json.loads(run("list", "--json")[1])) == 4

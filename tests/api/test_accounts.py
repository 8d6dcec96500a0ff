"""Passwords, the count of attempts, and logging in."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import redis.asyncio as redis

from api import passwords as passwords_module
from api.accounts import Accounts, NotActive, WrongLogin
from api.login_throttle import Limits, LoginThrottle, TooManyAttempts
from api.passwords import MOST, NICENESS, Busy, Passwords
from engine.errors import BadInput
from engine.stores.people import People

pytestmark = pytest.mark.asyncio


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    made = redis.Redis.from_url(redis_url)
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def accounts(client: redis.Redis, passwords: Passwords) -> Accounts:
    return Accounts(People(client), passwords, LoginThrottle(client, "person", Limits(3, 6, 9)))


async def test_a_password_is_known_by_its_hash_alone(passwords: Passwords) -> None:
    kept = await passwords.hash("correct horse")
    assert kept.startswith("$argon2id$")
    assert "horse" not in kept
    assert await passwords.verify(kept, "correct horse")
    for wrong in ("correct hors", "Correct horse", "", "x" * (MOST + 1)):
        assert not await passwords.verify(kept, wrong)
    assert not await passwords.verify("", "")
    assert not await passwords.verify("no hash", "no hash")


@pytest.mark.parametrize("password", ["", "short", "x" * (MOST + 1)])
async def test_a_password_that_will_not_do(passwords: Passwords, password: str) -> None:
    with pytest.raises(BadInput, match="a password has 6 to 1000 characters"):
        await passwords.hash(password)


async def test_a_name_that_nobody_has_costs_the_same_work(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await passwords.hash("secret")
    await passwords.verify("", "first")
    compared = []
    monkeypatch.setattr(passwords_module, "_matches", lambda kept, given: compared.append(kept[:30]) or False)
    await passwords.verify(kept, "wrong")
    await passwords.verify("", "wrong")
    assert compared[0] == compared[1]


async def test_one_thread_of_low_priority_hashes_and_few_may_wait(passwords: Passwords) -> None:
    few = Passwords(most_waiting=2)
    gate, inside = threading.Event(), []

    def held() -> None:
        inside.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) if sys.platform == "linux" else 0)
        gate.wait(10)

    tasks = [asyncio.create_task(few._run(held)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await few.verify("", "one too many")
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    with pytest.raises(Busy):
        await few.verify("", "the place is free only when the thread is")
    gate.set()
    await tasks[0]
    while few._waiting:
        await asyncio.sleep(0.01)
    assert not await few.verify("", "free again")
    few.close()
    if sys.platform == "linux":
        assert inside[0] == min(os.getpriority(os.PRIO_PROCESS, os.getpid()) + NICENESS, 19)


async def test_logging_in(accounts: Accounts) -> None:
    made = await accounts.add("acme", "Ada", "secret-1", "tenant_admin")
    assert await accounts.log_in("ada", "secret-1", "10.0.0.1") == made
    for name, password in (("ada", "secret-2"), ("nobody", "secret-1"), ("", ""), ("ada", "")):
        with pytest.raises(WrongLogin):
            await accounts.log_in(name, password, "10.0.0.2")


async def test_who_is_disabled_is_told_so_only_with_the_right_password(accounts: Accounts) -> None:
    await accounts.add("acme", "ada", "secret-1", "customer", enabled=False)
    with pytest.raises(NotActive):
        await accounts.log_in("ada", "secret-1", "a")
    with pytest.raises(WrongLogin):
        await accounts.log_in("ada", "secret-2", "a")


async def test_another_password_needs_the_one_before(accounts: Accounts) -> None:
    made = await accounts.add("acme", "ada", "secret-1", "customer")
    with pytest.raises(WrongLogin):
        await accounts.change_password(made, "secret-2", "secret-3", "a")
    changed = await accounts.change_password(made, "secret-1", "secret-3", "a")
    assert changed.generation == made.generation + 1
    assert await accounts.is_password(changed, "secret-3")


async def fail(accounts: Accounts, name: str, address: str) -> None:
    with pytest.raises(WrongLogin):
        await accounts.log_in(name, "wrong-one", address)


async def test_guessing_is_slowed_by_name_and_address(accounts: Accounts, client: redis.Redis) -> None:
    await accounts.add("acme", "ada", "secret-1", "customer")
    for _ in range(3):
        await fail(accounts, "ada", "a")
    with pytest.raises(TooManyAttempts) as caught:
        await accounts.log_in("ada", "secret-1", "a")
    assert 0 < caught.value.retry_after_s <= 300
    # Another address is not held up by it, and a login that succeeds counts no more.
    for _ in range(20):
        await accounts.log_in("ada", "secret-1", "b")
    # Everything from one address.
    await fail(accounts, "eve", "a")
    await fail(accounts, "eve", "a")
    with pytest.raises(TooManyAttempts):
        await accounts.log_in("eve", "x", "a")
    # One name from everywhere.
    for n in range(5):
        await fail(accounts, "ada", f"c{n}")
    with pytest.raises(TooManyAttempts):
        await accounts.log_in("ada", "secret-1", "d")
    for key in await client.keys("*attempts*"):
        assert 0 < await client.ttl(key) <= 300, key


async def test_a_login_that_was_turned_away_counts_no_more(
    accounts: Accounts, passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accounts.add("acme", "ada", "secret-1", "customer")
    monkeypatch.setattr(passwords, "_most", 0)
    for _ in range(20):
        with pytest.raises(Busy):
            await accounts.log_in("ada", "secret-1", "a")
    monkeypatch.undo()
    assert (await accounts.log_in("ada", "secret-1", "a")).username == "ada"


async def test_an_attempt_that_is_still_running_counts_already(accounts: Accounts) -> None:
    await accounts.add("acme", "ada", "secret-1", "customer")
    tries = await asyncio.gather(*(accounts.log_in("ada", "wrong-one", "a") for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(each, WrongLogin) for each in tries) == 3

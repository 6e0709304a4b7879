"""The store on an event loop: what a cancelled caller leaves behind, and errors."""

from __future__ import annotations

import asyncio
import threading

import pytest

from store.database.database import Database
from store.database.promotions import append_promotion, latest_promotions
from store.database.store import Store
from store.errors import StoreError
from tests.helpers.samples import a_promotion


@pytest.fixture
def store(db: Database) -> Store:
    return Store(db)


async def test_a_transaction_whose_caller_is_cancelled_is_committed_as_a_whole(
    store: Store,
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    first, second = a_promotion(task="one"), a_promotion(task="two")

    def work(db: Database) -> None:
        try:
            with db.transaction():
                append_promotion(db, first)
                begun.set()
                go_on.wait()
                append_promotion(db, second)
        finally:
            ended.set()

    caller = asyncio.create_task(store.run(work))
    await asyncio.to_thread(begun.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await store.latest_promotions() == {}  # readers do not wait for it
    go_on.set()
    await asyncio.to_thread(ended.wait)
    assert set(await store.latest_promotions()) == {"one", "two"}


async def test_an_error_in_a_transaction_reaches_the_caller_and_rolls_back(store: Store) -> None:
    def work(db: Database) -> None:
        with db.transaction():
            append_promotion(db, a_promotion(task="one"))
            raise StoreError("on purpose")

    with pytest.raises(StoreError, match="on purpose"):
        await store.run(work)
    assert await store.run(latest_promotions) == {}


async def test_a_method_passes_its_arguments_to_the_function(store: Store) -> None:
    promotions = [a_promotion(task="one", at=float(n)) for n in range(3)]
    for promotion in promotions:
        await store.append_promotion(promotion)
    assert await store.promotions_of_task("one", limit=2) == [promotions[2], promotions[1]]

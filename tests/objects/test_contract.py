"""What every object store promises, on every engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge.errors import ObjectError, ObjectExists, ObjectMissing
from edge.objects.interface import ObjectStore
from edge.objects.opening import open_objects
from edge.objects.settings import MIB, ObjectSettings

CHUNK = bytes(range(250)) * 128
BAD_KEYS = ["", "/a", "a/", "a//b", "../a", "a/..", ".", "a\0", "ü", "a b", "x" * 901]


async def test_a_body_is_there_until_it_is_replaced_or_removed(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing, match="a/b"):
        await store.get("a/b")
    await store.put("a/b", CHUNK)
    assert await store.get("a/b") == CHUNK
    about = {"session_id": "%E4%BC%9A", "seq": "1"}
    await store.put("a/b", b"second", content_type="application/json", metadata=about)
    assert await store.get("a/b") == b"second"
    await store.remove(["a/b", "never/there"])
    with pytest.raises(ObjectMissing):
        await store.get("a/b")


async def test_a_new_object_replaces_none(store: ObjectStore) -> None:
    await store.put("a/b", b"first", only_new=True)
    with pytest.raises(ObjectExists, match="a/b"):
        await store.put("a/b", b"second", only_new=True)
    with pytest.raises(ObjectExists):
        await store.put("a/b", b"first", only_new=True)
    assert await store.get("a/b") == b"first"
    await store.remove(["a/b"])
    await store.put("a/b", b"third", only_new=True)
    assert await store.get("a/b") == b"third"


async def test_of_many_who_put_a_new_object_one_does(store: ObjectStore) -> None:
    tries = [store.put("a", str(number).encode(), only_new=True) for number in range(5)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(result is None for result in results) == 1, results
    assert all(result is None or isinstance(result, ObjectExists) for result in results)
    assert await store.get("a") == str(results.index(None)).encode()


async def test_keys_are_found_in_order_page_by_page(store: ObjectStore) -> None:
    chunks = [f"sessions/m1/chunks/{seq:08d}.pcm" for seq in range(1, 12)]
    others = [
        "sessions/m1/chunks/teacher/00000001.pcm",
        "sessions/m1/result.json",
        "sessions/m10/chunks/00000001.pcm",
    ]
    await asyncio.gather(*(store.put(key, b"x") for key in reversed(chunks + others)))
    found: list[str] = []
    while page := await store.find("sessions/m1/", found[-1] if found else "", 4):
        assert len(page) <= 4
        found += page
    assert found == chunks + others[:2]
    assert await store.find("sessions/m1/chunks/", chunks[8]) == [*chunks[9:], others[0]]
    assert await store.find("sessions/m") == chunks + others
    assert await store.find("sessions/m2") == []
    assert await store.find("", others[1]) == others[2:]


async def test_removing_all_of_a_prefix_leaves_the_others(store: ObjectStore) -> None:
    keys = [f"a/{number:04d}" for number in range(30)]
    await asyncio.gather(*(store.put(key, b"x") for key in [*keys, "ab/c"]))
    assert await store.remove_all("a/") == 30
    assert await store.remove_all("a/") == 0
    assert await store.find("") == ["ab/c"]


async def test_empty_and_large_bodies_come_back_whole(store: ObjectStore) -> None:
    large = CHUNK * 300
    assert len(large) > 8 * MIB
    await store.put("empty", b"")
    await store.put("large", large, only_new=True)
    assert await store.get("empty") == b""
    assert await store.get("large") == large
    with pytest.raises(ObjectExists):
        await store.put("large", large[:-1], only_new=True)
    await store.put("large", large[::-1])
    assert await store.get("large") == large[::-1]


async def test_names_may_be_as_long_as_session_ids_make_them(store: ObjectStore) -> None:
    key = f"sessions/~{'x' * 342}/chunks/teacher/00000001.pcm"
    await store.put(key, b"x")
    assert await store.find("sessions/") == [key]
    assert await store.get(key) == b"x"


async def test_what_is_no_key_is_refused_alike(store: ObjectStore) -> None:
    for key in BAD_KEYS:
        for work in (store.put(key, b""), store.get(key), store.remove([key])):
            with pytest.raises(ObjectError, match="is no key"):
                await work
    assert await store.find("") == []


async def test_another_worker_sees_the_same(
    store: ObjectStore, given: ObjectSettings, tmp_path: Path
) -> None:
    await store.put("a", b"one")
    async with open_objects(given, tmp_path) as other:
        assert await other.get("a") == b"one"
        with pytest.raises(ObjectExists):
            await other.put("a", b"two", only_new=True)
        await other.put("b", b"two")
        await other.remove(["a"])
    assert await store.find("") == ["b"]


async def test_a_put_that_is_cancelled_stores_all_or_nothing(store: ObjectStore) -> None:
    for wait_s in (0.0, 0.001, 0.002, 0.004):
        putting = asyncio.create_task(store.put("a", CHUNK))
        await asyncio.wait([putting], timeout=wait_s)
        putting.cancel()
        await asyncio.wait([putting])
        try:
            assert await store.get("a") == CHUNK
        except ObjectMissing:
            continue
        await store.remove(["a"])


async def test_a_closed_store_says_so(given: ObjectSettings, tmp_path: Path) -> None:
    store = open_objects(given, tmp_path)
    async with store:
        await store.put("a", b"one")
    with pytest.raises(ObjectError, match="closed"):
        await store.get("a")
    async with store:
        assert await store.get("a") == b"one"

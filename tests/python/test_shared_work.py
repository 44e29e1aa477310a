# SPDX-License-Identifier: BSD-3-Clause
"""Work shared through a store, between threads that stand for ranks."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
import torch.distributed as dist
from threads import in_threads

from aimetpp.amp.journal import open_journal
from aimetpp.common import shared_work
from aimetpp.common.files import sole_user
from aimetpp.common.shared_work import SharedWork, join_ranks, process_group_size


def hands(count: int) -> list[SharedWork]:
    store = dist.HashStore()
    return [SharedWork(store, rank, count, "test") for rank in range(count)]


def test_each_piece_is_computed_once() -> None:
    computed: Counter[int] = Counter()
    found: list[dict[int, str]] = []
    both = threading.Barrier(2)

    def take_part(work: SharedWork) -> None:
        mine = 0

        def compute(index: int) -> str:
            nonlocal mine
            if mine == 0:
                both.wait()  # neither may do it all
            mine += 1
            computed[index] += 1
            return f"value {index}"

        with work.taking_part():
            keys = [f"piece {index}" for index in range(20)]
            found.append(dict(work.obtain_all(keys, compute)))

    in_threads(*(lambda work=work: take_part(work) for work in hands(2)))
    assert computed == dict.fromkeys(range(20), 1)
    assert found == [{index: f"value {index}" for index in range(20)}] * 2


def test_a_dead_rank_loses_its_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "LEASE_SECONDS", 0.2)
    dead, alive = hands(2)  # a rank that shows no sign of life
    assert dead._claim("piece") and not alive._claim("piece")
    with alive.taking_part():
        (value,) = (v for _, v in alive.obtain_all(["other"], lambda _: "done"))
        assert value == "done"
        while not alive._claim("piece"):
            alive._pause()
    # It was only slow: what was published first counts for it too.
    assert alive._compute("piece", lambda: "first") == "first"
    assert dead._compute("piece", lambda: "second") == "first"


def test_a_piece_that_fails_is_left_to_the_others() -> None:
    first, second = hands(2)
    gone = threading.Event()

    def fail() -> str:
        raise ValueError("out of memory")

    def take_part() -> None:
        with pytest.raises(ValueError, match="out of memory"), first.taking_part():
            first.obtain("piece", fail)
        gone.set()

    def take_over() -> None:
        with second.taking_part():
            gone.wait()
            assert second.obtain("piece", lambda: "done") == "done"

    in_threads(take_part, take_over)


def test_a_store_that_is_gone_is_named() -> None:
    server = dist.TCPStore("127.0.0.1", 0, 1, True)
    client = dist.TCPStore("127.0.0.1", server.port, 1, False)
    work = SharedWork(client, 1, 2, "test")
    del server
    with pytest.raises(RuntimeError, match="rank 1: the store .* does not answer"):
        work.obtain("piece", lambda: "done")


def test_ranks_need_a_process_group() -> None:
    assert process_group_size() == 1
    with pytest.raises(RuntimeError, match="start the script with torchrun"):
        join_ranks("amp")


def test_ranks_open_one_journal(tmp_path: Path) -> None:
    opened = threading.Barrier(2)
    first, second = hands(2)

    def search(work: SharedWork) -> None:
        with open_journal(tmp_path, {"model": "a"}, False, work) as cache:
            opened.wait()
            cache.put("front", [work.rank], float(work.rank))
            assert len(cache) == 1  # what the others measure comes through the store
            with (
                pytest.raises(RuntimeError, match=r"in use by another run \(rank"),
                open_journal(tmp_path, {"model": "a"}, False, None),
            ):
                pass
            opened.wait()

    in_threads(lambda: search(first), lambda: search(second))
    with open_journal(tmp_path, {"model": "a"}, False, None) as cache:
        assert [cache.get("front", [rank]) for rank in range(2)] == [0.0, 1.0]
        with (
            pytest.raises(RuntimeError, match=r"in use by another run \(process"),
            open_journal(tmp_path, {"model": "a"}, False, hands(1)[0]),
        ):
            pass


def test_ranks_must_have_one_model_and_one_folder(tmp_path: Path) -> None:
    for name, model, message in (
        ("here", "b", "other model than the rank that began"),
        ("there", "a", "must be one folder that all ranks see"),
    ):
        first, second = hands(2)
        opened, refused = threading.Event(), threading.Event()
        for folder in ("here", "there"):
            (tmp_path / folder).mkdir(exist_ok=True)

        def begin(work: SharedWork = first, opened=opened, refused=refused) -> None:
            with open_journal(tmp_path / "here", {"model": "a"}, True, work):
                opened.set()
                refused.wait()

        def join(
            work=second,
            opened=opened,
            refused=refused,
            name=name,
            model=model,
            message=message,
        ) -> None:
            opened.wait()
            with (
                pytest.raises(RuntimeError, match=message),
                open_journal(tmp_path / name, {"model": model}, True, work),
            ):
                pass
            refused.set()

        in_threads(begin, join)


def test_a_lock_says_who_holds_it(tmp_path: Path) -> None:
    with (
        sole_user(tmp_path / "lock", "the folder"),
        pytest.raises(RuntimeError, match=r"the folder is in use .*\(process \d+\)"),
        sole_user(tmp_path / "lock", "the folder"),
    ):
        pass

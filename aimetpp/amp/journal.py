# SPDX-License-Identifier: BSD-3-Clause
"""Opening the journal of a results folder, alone or with other ranks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aimetpp.amp.cache import EvaluationCache
from aimetpp.amp.rank_values import rank_values
from aimetpp.common.files import CrewLock, sole_user
from aimetpp.common.shared_work import SharedWork


@contextlib.contextmanager
def open_journal(
    results: Path,
    fingerprint: dict[str, Any],
    clean_start: bool,
    work: SharedWork | None,
) -> Iterator[EvaluationCache]:
    """The scores of a results folder, which is this search's while the context lasts.

    Args:
        results: the folder.
        fingerprint: as in `EvaluationCache`.
        clean_start: as in `EvaluationCache`.
        work: of the ranks that search together. One of them opens the journal; the
            others then have what it had.

    Raises:
        RuntimeError: another run uses the folder; ranks have different folders, models
            or arguments.
    """
    texts = rank_values(0 if work is None else work.rank)
    folder = results / ".cache"
    folder.mkdir(exist_ok=True)
    what = f"results_dir {str(results)!r}"
    if work is None:
        with sole_user(folder / "lock", what):
            cache = EvaluationCache(folder, fingerprint, clean_start, None, texts)
            with _synced(cache):
                yield cache
        return
    with work.taking_part(), CrewLock(folder / "lock", what) as lock:
        mine: list[EvaluationCache] = []

        def open_first() -> str:
            lock.take_first(work.name)
            mine.append(EvaluationCache(folder, fingerprint, clean_start, None, texts))
            return json.dumps([work.name, mine[0].size()])

        crew, size = json.loads(work.obtain("journal", open_first))
        if not mine:
            lock.join(crew)
            opened = (crew, size)
            mine.append(EvaluationCache(folder, fingerprint, False, opened, texts))
        with _synced(mine[0]) as cache:
            yield cache


@contextlib.contextmanager
def _synced(cache: EvaluationCache) -> Iterator[EvaluationCache]:
    try:
        yield cache
    finally:
        cache.sync()

# SPDX-License-Identifier: BSD-3-Clause
"""Work that several processes do together: each piece once, whoever comes first.

The processes need nothing but a store of torch.distributed between them, and none
waits for one that is dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch.distributed as dist

# A process whose sign of life has not changed for so long is taken for dead. One that
# lives, and was only held up, loses nothing: the value published first counts.
LEASE_SECONDS = 30.0
_POLL_SECONDS = 0.02

_runs = 0  # of SharedWork in this process; the same in every rank of a program


class SharedWork:
    """This process's hand in the work.

    A piece has a key and yields a text. Whoever claims it first computes and publishes
    it; the others read it. A claim lapses when its holder dies or gives it up.

    Args:
        store: that of the process group.
        rank: of this process.
        size: number of ranks.
        namespace: the same in all of them, and of this work only.
    """

    def __init__(self, store: Any, rank: int, size: int, namespace: str) -> None:
        self.rank = rank
        self.size = size
        self.namespace = namespace
        self._store = dist.PrefixStore(namespace, store)
        self._token = f"rank {rank}, {uuid.uuid4().hex[:12]}"
        self._attempts: dict[str, int] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        self._stopped = threading.Event()

    @property
    def name(self) -> str:
        """Of this process in this work; no other one has it."""
        return self._token

    @contextlib.contextmanager
    def taking_part(self) -> Iterator[SharedWork]:
        """Shows the others that this process lives, while the context lasts.

        Without an exception it ends when all that take part have what they need from
        the store, whose server may be in this process.
        """
        number = self._ask("add", "members", 1)
        self._ask("set", f"member/{number}", self._token)
        self._ask("add", f"alive/{self._token}", 1)
        pulse = threading.Thread(target=self._show_life, daemon=True)
        pulse.start()
        try:
            try:
                yield self
            finally:
                # A store that is gone must not hide an error.
                with contextlib.suppress(RuntimeError):
                    self._ask("set", f"left/{self._token}", "1")
            self._wait_for_others()
        finally:
            self._stopped.set()
            pulse.join()

    def obtain(self, key: str, compute: Callable[[], str]) -> str:
        """The value of a piece, from this process or another one.

        Raises:
            Exception: what `compute` raises; the piece is then left to the others.
            RuntimeError: the store is gone.
        """
        return next(self.obtain_all([key], lambda _: compute()))[1]

    def obtain_all(
        self, keys: Sequence[str], compute: Callable[[int], str]
    ) -> Iterator[tuple[int, str]]:
        """(index, value) of each piece, as they come.

        Args:
            keys: without repetition.
            compute: from the index of a piece to its value, which is not empty.

        Raises:
            Exception: as in `obtain`.
        """
        names = [_short(key) for key in keys]
        pending = list(range(len(keys)))
        while pending:
            before = len(pending)
            for index in list(pending):
                value = self._published(names[index])
                if value is None and self._claim(names[index]):
                    value = self._compute(names[index], partial(compute, index))
                if value is not None:
                    pending.remove(index)
                    yield index, value
            if len(pending) == before:
                self._pause()

    def await_other(self, key: str, name: str) -> None:
        """Waits until a piece is published, or the process of that `name`, which will
        claim it if nobody else does, is gone.

        Raises:
            RuntimeError: the store is gone.
        """
        digest = _short(key)
        while self._published(digest) is None and self._is_alive(name):
            if self._ask("check", [f"left/{name}"]):
                return
            self._pause()

    def exchange(self, key: str, value: str) -> list[str]:
        """What each rank gives under a key, by rank; waits for all of them.

        Args:
            key: used once in this work.
            value: what this rank gives; not empty.

        Raises:
            RuntimeError: a rank has died, or the store is gone.
        """
        self._ask("set", f"given/{key}/{self.rank}", value)
        values: list[str] = []
        while len(values) < self.size:
            name = f"given/{key}/{len(values)}"
            if self._ask("check", [name]):
                values.append(str(self._ask("get", name).decode()))
                continue
            if self._has_died(len(values)):
                raise RuntimeError(
                    f"rank {self.rank}: rank {len(values)} has died; its part of "
                    f"{key!r} is missing"
                )
            self._pause()
        return values

    def _has_died(self, rank: int) -> bool:
        """True for a rank that took part, and gives no sign of life."""
        tokens = map(self._member, range(1, self._ask("add", "members", 0) + 1))
        mine = [token for token in tokens if token.startswith(f"rank {rank},")]
        return bool(mine) and not any(map(self._is_alive, mine))

    def _compute(self, name: str, compute: Callable[[], str]) -> str:
        try:
            value = compute()
        except BaseException:
            # A store that is gone must not hide why.
            with contextlib.suppress(RuntimeError):
                self._ask("set", f"given up/{name}/{self._attempts.get(name, 0)}", "1")
            raise
        return str(self._ask("compare_set", f"value/{name}", "", value).decode())

    def _published(self, name: str) -> str | None:
        if not self._ask("check", [f"value/{name}"]):
            return None
        return str(self._ask("get", f"value/{name}").decode())

    def _claim(self, name: str) -> bool:
        """True where the piece is this process's now."""
        while True:
            attempt = self._attempts.setdefault(name, 0)
            claim = f"claim/{name}/{attempt}"
            holder = self._ask("compare_set", claim, "", self._token).decode()
            if holder == self._token:
                # It may have been published since this process looked.
                return self._published(name) is None
            given_up = self._ask("check", [f"given up/{name}/{attempt}"])
            if not given_up and self._is_alive(holder):
                return False
            self._attempts[name] = attempt + 1

    def _is_alive(self, token: str) -> bool:
        now = time.monotonic()
        beats = self._ask("add", f"alive/{token}", 0)
        known = self._seen.get(token)
        if known is None or known[0] != beats:
            self._seen[token] = (beats, now)
            return True
        return now - known[1] < LEASE_SECONDS

    def _show_life(self) -> None:
        # Where the store is gone, the process finds out when it needs it.
        with contextlib.suppress(RuntimeError):
            while not self._stopped.wait(LEASE_SECONDS / 10):
                self._ask("add", f"alive/{self._token}", 1)

    def _wait_for_others(self) -> None:
        # A store that goes now held nothing more that this process needs.
        with contextlib.suppress(RuntimeError):
            number = 1
            while number <= self._ask("add", "members", 0):
                token = self._member(number)
                while not self._ask("check", [f"left/{token}"]):
                    if not self._is_alive(token):
                        break
                    self._pause()
                number += 1

    def _member(self, number: int) -> str:
        return str(self._ask("get", f"member/{number}").decode())

    def _pause(self) -> None:
        self._stopped.wait(_POLL_SECONDS)

    def _ask(self, operation: str, *arguments: Any) -> Any:
        try:
            return getattr(self._store, operation)(*arguments)
        except RuntimeError as error:
            raise RuntimeError(
                f"rank {self.rank}: the store of the process group does not answer; "
                f"the process that holds it is probably gone ({error})"
            ) from error


def _short(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def process_group_size() -> int:
    """Ranks of the process group that is initialized, or that torchrun has started;
    1 without any.
    """
    if not dist.is_available():
        return 1
    if dist.is_initialized():
        return dist.get_world_size()
    if dist.is_torchelastic_launched():
        return int(os.environ["WORLD_SIZE"])
    return 1


def join_ranks(what: str) -> SharedWork:
    """This process's hand in a piece of work that all ranks begin.

    Every rank must call this in the same order. Under torchrun no process group needs
    to be initialized.

    Args:
        what: the kind of work.

    Raises:
        RuntimeError: there is no process group.
    """
    global _runs
    if dist.is_initialized():
        # PyTorch has no public name for it.
        store = dist.distributed_c10d._get_default_store()
        rank, size = dist.get_rank(), dist.get_world_size()
    elif process_group_size() > 1:
        store, rank, size = _rendezvous()
    else:
        raise RuntimeError(
            f"{what}: sharing work among ranks needs torch.distributed: start the "
            "script with torchrun, or call torch.distributed.init_process_group"
        )
    _runs += 1
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return SharedWork(store, rank, size, f"aimetpp/{what}/{restart}/{_runs}")


_launched: list[tuple[Any, int, int]] = []


def _rendezvous() -> tuple[Any, int, int]:
    """Store, rank and size as torchrun has told them, once for the process."""
    if not _launched:
        _launched.append(next(iter(dist.rendezvous("env://"))))
    return _launched[0]

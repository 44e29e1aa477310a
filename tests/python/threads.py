# SPDX-License-Identifier: BSD-3-Clause
"""Functions run side by side."""

import threading
from collections.abc import Callable


def in_threads(*actions: Callable[[], object]) -> None:
    """Runs each in a thread of its own, waits for all, and raises the first error."""
    errors: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]

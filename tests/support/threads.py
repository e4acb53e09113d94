"""Two threads in one object that only one may use at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable


def refused_to_a_second_thread(work: Callable[[], object], refusal: type[Exception]) -> bool:
    """Whether, of two threads that do the same work over and over, one has met ``refusal``.

    Any other exception is raised here.
    """
    met, stop = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def work_until_told() -> None:
        while not stop.is_set():
            try:
                work()
            except refusal:
                met.set()
            except BaseException as error:
                failures.append(error)
                met.set()
                return

    threads = [threading.Thread(target=work_until_told) for _ in range(2)]
    for thread in threads:
        thread.start()
    was_met = met.wait(20)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return was_met

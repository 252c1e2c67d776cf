"""The engine of one machine: processes that write shards."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing import connection
from pathlib import Path

from wherein.errors import InputError
from wherein.synth.plan import Plan
from wherein.synth.shards import Shard, write_shard


def on_this_machine(plan: Plan, folder: Path, numbers: Sequence[int], workers: int) -> Iterator[Shard]:
    """Write shards in `workers` processes, in this one if it is one; see `shards.Engine`.

    Raises:
        InputError: as of `write_shard`, or a worker was killed.
    """
    write = partial(write_shard, plan, folder)
    if workers == 1:
        yield from map(write, numbers)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        yield from _in_order(pool, write, numbers, workers)
    except BrokenProcessPool as error:
        raise InputError(
            "A worker was killed, as happens where memory is short: run the same command again with fewer --workers; "
            "finished shards are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, write: Callable[[int], Shard], numbers: Sequence[int], workers: int
) -> Iterator[Shard]:
    """As `pool.map`, but no shard waits in the pool's queue: what is there is written even after Ctrl-C."""
    left, begun = iter(numbers), deque[Future[Shard]]()
    while True:
        running = [future for future in begun if not future.done()]
        new = [pool.submit(write, number) for number in islice(left, workers - len(running))]
        begun.extend(new)
        if not begun:
            return
        wait([*running, *new], return_when=FIRST_COMPLETED)
        while begun and begun[0].done():
            yield begun.popleft().result()


def _begin() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)

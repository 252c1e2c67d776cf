"""The engine of one machine: processes that write shards."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
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
        yield from pool.map(write, numbers)
    except BrokenProcessPool as error:
        raise InputError(
            "A worker was killed, as happens where memory is short: run the same command again with fewer --workers; "
            "finished shards are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)

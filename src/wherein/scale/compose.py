"""The engine of a cluster: Ray Data places the shards, starts the workers and begins again what a lost node had."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wherein.errors import InputError
from wherein.synth.plan import Plan
from wherein.synth.shards import Shard, write_shard


def on_ray(plan: Plan, folder: Path, numbers: Sequence[int], workers: int) -> Iterator[Shard]:
    """Write shards with `workers` Ray tasks at a time; see `wherein.synth.shards.Engine`.

    Ray is the cluster that RAY_ADDRESS names, or else one on this machine. `folder` and the plan's folders must be the
    same files on every node.

    Raises:
        InputError: Ray is not installed, or as of `write_shard`.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports nothing home
        import ray
        from ray.data import TaskPoolStrategy
    except ImportError as error:
        raise InputError(
            "The engine ray is not installed: pip install 'wherein[scale]', or take --engine local."
        ) from error
    if not numbers:
        return
    started = not ray.is_initialized()
    if started:
        cores = None if os.environ.get("RAY_ADDRESS") else workers  # a cluster knows its own
        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        todo = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        todo.context.enable_progress_bars = False  # this data set's own: the caller's settings stay as they are
        todo.context.execution_options.preserve_order = True
        task = _Task(_absolute(plan), folder.resolve())
        pool = TaskPoolStrategy(size=min(workers, len(numbers)))
        for row in todo.map(task, compute=pool).iter_rows():
            if "error" in row:
                raise InputError(row["error"])
            yield Shard(**row)
    finally:
        logger.setLevel(level)
        if started:
            ray.shutdown()


def _absolute(plan: Plan) -> Plan:
    """The plan with folders that mean the same wherever a worker runs."""
    objects, backgrounds = (folder and folder.resolve() for folder in (plan.objects, plan.backgrounds))
    return replace(plan, objects=objects, backgrounds=backgrounds)


class _Task:
    """Writes the shard of a row; what goes wrong is a row as well, so that Ray does not wrap it, nor try it again."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The finished shard, or the error."""
        try:
            return asdict(write_shard(self.plan, self.folder, row["number"]))
        except InputError as error:
            return {"error": str(error)}

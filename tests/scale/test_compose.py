"""Ray writes the bytes that one process writes."""

import builtins
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wherein.errors import InputError
from wherein.scale.compose import on_ray
from wherein.synth import Plan, Shards
from wherein.synth.shards import Engine, write_shards
from wherein.synth.workers import on_this_machine

PLAN = Plan(count=50, side=32, per_shard=10)


def write(engine: Engine, folder: Path) -> dict[str, bytes]:
    list(write_shards(PLAN, folder, engine, 2))
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, started once."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_two_workers_on_ray_write_what_one_process_writes(tmp_path: Path) -> None:
    local = write(on_this_machine, tmp_path / "local")
    assert write(on_ray, tmp_path / "ray") == local
    (tmp_path / "ray" / "shard-000002.tar").unlink()  # and go on where they stopped
    assert write(on_ray, tmp_path / "ray") == local
    assert len(Shards(tmp_path / "ray")) == 50


@pytest.mark.usefixtures("cluster")
def test_the_caller_s_settings_of_ray_stay_as_they_are(tmp_path: Path) -> None:
    from ray.data import DataContext

    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.execution_options.preserve_order, logger.level
    assert before[:2] == (True, False)
    list(write_shards(PLAN, tmp_path, on_ray, 2))
    assert DataContext.get_current() is context
    assert before == (context.enable_progress_bars, context.execution_options.preserve_order, logger.level)


@pytest.mark.usefixtures("cluster")
def test_what_goes_wrong_on_a_node_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out" / "shard-000001.tar").mkdir(parents=True)  # where the file belongs
    with pytest.raises(
        InputError, match="^Cannot write .*shard-000001.tar: Is a directory; finished shards are kept.$"
    ):
        write(on_ray, tmp_path / "out")
    assert (tmp_path / "out" / "shard-000000.tar").is_file()


def test_ray_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "ray":
            raise ImportError(name)
        return there(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"pip install 'wherein\[scale\]'"):
        list(on_ray(PLAN, tmp_path, [0], 1))

"""`wherein train` as a user runs it: killed in the midst of its steps and resumed, and resumed on other weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from wherein.cli import app
from wherein.errors import InputError
from wherein.methods.adapter import CONFIG, FILES, WEIGHTS
from wherein.training.trainer import STATE, TENSORS, checkpoints

STEPS, EVERY = 120, 50  # a checkpoint is written every 50 steps, and at the end
LIMIT = 90.0  # seconds, of a machine that has other things to do


def save_model(build: Any, folder: Path, seed: int = 0) -> Path:
    vlm = build("llava", seed)
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def command(tmp_path: Path, out: Path, *options: str) -> list[str]:
    """Train PIN on the tiny model in `tmp_path`; every run reads the features that the first one encoded."""
    common = ["train", "pin", "--model", str(tmp_path / "model"), "--cache", str(tmp_path / "cache"), "--seed", "3"]
    return [*common, "--images", "16", "--batch", "2", "--steps", str(STEPS), "--out", str(out), *options]


def start(tmp_path: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "wherein", *command(tmp_path, out, *options)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)  # type: ignore[call-overload]


def steps(out: Path) -> list[int]:
    """The steps of the checkpoints, by what is in them, which is what their names say."""
    found = [json.loads((path / STATE).read_text())["step"] for path in checkpoints(out)]
    assert [path.name for path in checkpoints(out)] == [f"checkpoint-{step:07d}" for step in found]
    return found


def test_a_killed_training_ends_in_the_adapter_of_one_that_was_not(build: Any, tmp_path: Path) -> None:
    save_model(build, tmp_path / "model")
    killed, whole, limit = tmp_path / "killed", tmp_path / "whole", time.monotonic() + LIMIT
    process = start(tmp_path, killed)
    try:
        while not checkpoints(killed):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
    finally:
        process.kill()  # SIGKILL
        process.wait()
    kept = steps(killed)
    assert kept[-1] in (EVERY, 2 * EVERY) and not any((killed / name).exists() for name in FILES)
    assert start(tmp_path, killed, "--resume").wait(LIMIT) == 0
    assert start(tmp_path, whole).wait(LIMIT) == 0
    assert steps(killed) == steps(whole) == [2 * EVERY, STEPS] and not (killed / ".checkpoint").exists()
    for name in (f"{checkpoints(whole)[0].name}/{TENSORS}", f"{checkpoints(whole)[1].name}/{TENSORS}", WEIGHTS):
        ours, theirs = load_file(killed / name), load_file(whole / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert (killed / CONFIG).read_text() == (whole / CONFIG).read_text()
    assert (killed / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()  # measured once, to the same figures


def test_other_weights_are_another_run(build: Any, tmp_path: Path) -> None:
    """A checkpoint belongs to the model it was trained on, whatever that is called."""
    save_model(build, tmp_path / "model")
    out = tmp_path / "out"
    first = CliRunner().invoke(app, command(tmp_path, out, "--steps", "2"))
    assert first.exit_code == 0, first.output
    before = (out / WEIGHTS).read_bytes()
    save_model(build, tmp_path / "model", seed=1)
    other = CliRunner().invoke(app, command(tmp_path, out, "--steps", "2", "--resume"))
    with pytest.raises(InputError, match=r"made with model fingerprint \w{16}, not \w{16}: resume with the same"):
        raise other.exception or AssertionError(other.output)
    assert (out / WEIGHTS).read_bytes() == before

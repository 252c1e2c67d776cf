"""What a device is fast in, and what a user reads when a model of other people cannot be read: why, and only that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wherein.checkpoints import fast_in, reading
from wherein.errors import InputError


def failing(error: Exception) -> Callable[[], None]:
    def read() -> None:
        raise error

    return read


def test_a_file_that_is_not_there_is_looked_for_here_and_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    missing = failing(FileNotFoundError("no config.json"))
    with pytest.raises(InputError) as refused:
        reading("a/b", "configuration", missing)
    assert str(refused.value) == (
        "Cannot read the configuration of 'a/b': it is no folder with a model here, and the Hub does not give it. "
        "no config.json"
    )
    with pytest.raises(InputError, match=f"^Cannot read the configuration in the folder {tmp_path}: no config.json$"):
        reading(str(tmp_path), "configuration", missing)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory.\n  Tried to allocate 2 GiB"),
        ImportError("This tokenizer needs sentencepiece"),
        ValueError("size mismatch for lm_head.weight"),
    ],
    ids=["memory", "package", "shape"],
)
def test_what_fails_in_a_model_that_is_there_is_not_the_hubs_fault(tmp_path: Path, error: Exception) -> None:
    for name in ("a/b", str(tmp_path)):
        with pytest.raises(InputError) as refused:
            reading(name, "weights", failing(error))
        assert str(refused.value) == f"Cannot load the weights of {name}: {' '.join(str(error).split())}"


@pytest.mark.parametrize(
    ("able", "kernels", "short"),
    [
        ({"avx512_bf16": True}, True, (True, False)),
        ({"amx_bf16": True, "avx512_fp16": True}, True, (True, True)),
        ({"bf16": True, "fp16_arith": True}, True, (True, True)),
        ({"bf16": True, "fp16_arith": True}, False, (False, False)),  # a torch for macOS
        ({"avx512_f": True, "avx512_vnni": True, "avx512_bf16": False}, True, (False, False)),
        ({}, True, (False, False)),
    ],
)
def test_a_cpu_is_fast_in_a_short_dtype_with_its_instructions_and_kernels_alone(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, Any], kernels: bool, short: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: kernels)
    assert (fast_in(torch.bfloat16, "cpu"), fast_in(torch.float16, "cpu")) == short
    assert fast_in(torch.float32, "cpu")


def test_what_a_torch_cannot_tell_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not fast_in(torch.bfloat16, "cpu")

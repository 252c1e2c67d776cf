"""Models of other people: where they run, and what a user reads when one cannot be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherein.errors import InputError

if TYPE_CHECKING:
    import torch

INSTRUCTIONS = {  # of a CPU, by the short dtypes that they are for, as torch calls them
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "fp16_arith"),
}


def device_for(name: str) -> str:
    """The torch device for what the user said: "auto" is CUDA where there is one. Raises InputError for none here."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"No device {name!r} here ({reason}): use cpu, or auto.") from error
    return name


def fast_in(dtype: torch.dtype, device: str | torch.device) -> bool:
    """Whether a device has instructions for a dtype, and this torch makes use of them.

    One without is slower in it than in float32: a CPU with AVX-512 four times, one with AVX2 many times. False where it
    is not known: an older torch does not tell what a CPU has.
    """
    import torch

    place, name = torch.device(device), str(dtype).removeprefix("torch.")
    if name not in INSTRUCTIONS:
        return True
    if place.type == "cuda":
        with torch.cuda.device(place):
            return name == "float16" or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    has = any(able.get(instruction, False) for instruction in INSTRUCTIONS[name])
    return place.type == "cpu" and has and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def configuration(name: str) -> Any:
    """A model's configuration. Raises InputError where it cannot be read."""
    from transformers import AutoConfig

    return reading(name, "configuration", lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))


def reading(name: str, what: str, read: Any) -> Any:
    """What `read()` gives of the model `name`. Raises InputError: transformers' many ways to fail, in one sentence."""
    from safetensors import SafetensorError

    try:
        return read()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise InputError(_sentence(name, what, error)) from error


def _sentence(name: str, what: str, error: Exception) -> str:
    """Why a part of a model could not be read: only an OSError is about files, here or on the Hub."""
    reason = " ".join(str(error).split())[:300]
    if not isinstance(error, OSError):
        return f"Cannot load the {what} of {name}: {reason}"
    if Path(name).is_dir():
        return f"Cannot read the {what} in the folder {name}: {reason}"
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return (
        f"Cannot read the {what} of {name!r}: it is no folder with a model here, and the Hub does not give "
        f"it{offline}. {reason}"
    )

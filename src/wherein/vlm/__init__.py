"""Frozen vision-language models and their seams. Importing this package is light: torch comes with the first model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wherein.checkpoints import device_for
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.vlm.base import FrozenVLM

__all__ = ["best_method", "load_vlm"]


def best_method(name: str = "default") -> str:
    """The name of the method that measured best on a model called `name`, as by `load_vlm`, without loading it.

    Raises:
        InputError: there is no such model, or its family is not served.
    """
    if name == "default":
        from wherein.vlm.default import DefaultVLM

        return DefaultVLM.best_method
    from wherein.vlm.loading import class_of

    return class_of(name).best_method


def load_vlm(
    name: str = "default",
    device: str = "auto",
    dtype: str = "auto",
    bits: int | None = None,
    size: int | None = None,
) -> FrozenVLM:
    """Load a frozen VLM.

    Args:
        name: "default", the one in the package, or a Hub id or folder of a model that `wherein models` lists.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1" ...
        dtype: "auto", what the checkpoint says, but float32 on a CPU that is slow in that, if it fits into memory; or
            float32, bfloat16, float16. "default" has no float16, and is in float32 on any device slow in bfloat16.
        bits: 4 or 8 to load quantised (needs bitsandbytes).
        size: side in pixels of the square that images become, for a family that can be resized: 448 for OpenFlamingo,
            364 for BLIP-2, as PIN was published.

    Raises:
        InputError: there is no such model, family or device, or it does not fit into memory.
        PartsError: a base part of the default model is neither cached nor can be fetched.
    """
    chosen = device_for(device)
    if name == "default":
        if dtype not in ("auto", "float32", "bfloat16") or bits is not None or size is not None:
            raise InputError(
                "The default model runs in float32 or bfloat16, at 448 pixels: leave other dtypes, bits and size out."
            )
        import torch

        from wherein.vlm.default import DefaultVLM

        return DefaultVLM(chosen, dtype=None if dtype == "auto" else getattr(torch, dtype))
    from wherein.vlm.loading import load

    return load(name, chosen, dtype, bits, size)

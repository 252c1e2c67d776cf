"""Frozen vision-language models and their seams. Importing this package is light: torch comes with the first model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.vlm.base import FrozenVLM

__all__ = ["load_vlm"]


def load_vlm(name: str = "default", device: str = "auto") -> FrozenVLM:
    """Load a frozen VLM by name; "default" is the one in the package.

    `device`: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1" ... Raises InputError for an unknown name or a
    device this machine lacks, PartsError if a base part is neither cached nor can be fetched.
    """
    if name != "default":
        raise InputError(f"Unknown model {name!r}: this release serves 'default'.")
    chosen = _device(device)
    from wherein.vlm.default import DefaultVLM

    return DefaultVLM(chosen)


def _device(name: str) -> str:
    """The torch device for what the user said."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"No device {name!r} here ({reason}): use cpu, or auto.") from error
    return name

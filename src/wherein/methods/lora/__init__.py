"""lora: low-rank updates of the vision encoder (LoRA, Hu et al., 2022), PIN's strongest baseline."""

from __future__ import annotations

from wherein.methods.lora.method import Lora

__all__ = ["Lora"]

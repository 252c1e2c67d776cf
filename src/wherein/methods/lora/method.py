"""Low-rank updates beside the vision encoder's layers, made by peft.

Notable choices:
- peft puts its layers in place of the encoder's; here they stand there inside a block only, so that outside it the
  encoder is the very module it was
- of a transformer, every linear layer in its blocks (attention and MLP, as the paper's 6 M parameters need); of a
  convolutional encoder, every 1 x 1 convolution, which is a linear layer of each place
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from wherein.errors import InputError
from wherein.methods.base import register
from wherein.methods.insert import Insert, InsertConfig, Inserted
from wherein.vlm.base import FrozenVLM, Pixels

RELEASED_RANK = 8


@dataclass(frozen=True)
class LoraConfig(InsertConfig):
    """Settings of low-rank updates. rank and alpha: 16 and 16 in the paper (8 and 16 as released)."""

    rank: int = 16
    alpha: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("rank", "alpha")


class LowRank(Insert):
    """The updates float32 of every layer; `blocks` are those of the vision encoder they are for."""

    encodes = True

    def __init__(self, config: LoraConfig, blocks: nn.Module) -> None:
        """Raises InputError without peft."""
        super().__init__()
        self.config = config
        try:
            from peft import LoraConfig as PeftConfig
            from peft import inject_adapter_in_model
        except ImportError as error:
            raise InputError("The method lora needs peft: run pip install 'wherein[train]'.") from error
        own = {name: module for name, module in blocks.named_modules() if _linear(module)}
        if not own:
            raise InputError("This vision encoder has no plain linear layer for LoRA: load the model without --bits.")
        settings = PeftConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules=list(own))
        inject_adapter_in_model(settings, blocks)
        del blocks.peft_config  # a note of peft's that the encoder is changed for good, which it is not
        self._places = [(*_parent(blocks, name), blocks.get_submodule(name), module) for name, module in own.items()]
        self.updates = nn.ParameterDict()
        for name in own:
            layer = blocks.get_submodule(name)
            for part in ("lora_A", "lora_B"):
                weight = getattr(layer, part)["default"].weight
                weight.data = weight.data.float()
                self.updates[f"{name}.{part}".replace(".", "/")] = weight
        self._put(ours=False)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """The encoder with the updates inside the block."""
        self._put(ours=True)
        try:
            yield
        finally:
            self._put(ours=False)

    def _put(self, ours: bool) -> None:
        for parent, name, layer, own in self._places:
            setattr(parent, name, layer if ours else own)

    def encode(self, vlm: FrozenVLM, pixels: Pixels) -> Tensor:
        """See Insert."""
        with vlm.lock, self._changed():
            return vlm.features(pixels)


@register
class Lora(Inserted):
    """LoRA on the vision encoder; answers as `Inserted` says."""

    name = "lora"
    baseline = True
    config_class = LoraConfig
    rates = {"default": 3e-4, "paper": 1e-3, "released": 1e-3}

    @classmethod
    def begin(cls, vlm: FrozenVLM, preset: str = "default") -> LowRank:
        """Updates that do nothing yet."""
        config = LoraConfig(codec=vlm.codec, rank=RELEASED_RANK if preset == "released" else LoraConfig.rank)
        return LowRank(config, vlm.encoder_blocks)

    @classmethod
    def build(cls, vlm: FrozenVLM, config: LoraConfig) -> LowRank:
        """See Inserted."""
        return LowRank(config, vlm.encoder_blocks)


def _linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear or (
        isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    )


def _parent(blocks: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return blocks.get_submodule(path), last

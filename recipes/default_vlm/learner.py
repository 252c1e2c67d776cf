"""A LoRA on the language model (and the connector beside it), trained in bfloat16 with float32 masters, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from wherein.vlm.default import DefaultVLM

RANK, ALPHA = 16, 32
SAVE_EVERY = 50


class Learner:
    """Wraps `vlm.language_model` in a LoRA of rank 16 on every linear map; `fit` trains it stage by stage."""

    def __init__(self, vlm: DefaultVLM) -> None:
        model = get_peft_model(
            vlm.language_model,
            LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0),
            autocast_adapter_dtype=False,
        )
        vlm.language_model = model.base_model.model
        self.vlm = vlm
        self.lora = [p for p in vlm.language_model.parameters() if p.requires_grad]
        self.masters = [p.detach().float().clone().requires_grad_(True) for p in self.lora]

    def fit(
        self, loss: Callable[[int], tuple[Tensor, Tensor]], steps: int, rate: float, style: float, path: Path
    ) -> None:
        """`steps` steps of Adam on `loss(step)` -> (scalar, each token's), the style path at `style` times the rate.

        A checkpoint every 50 steps and at the end goes to `path`; a stage that was finished is loaded, else it goes on.
        """
        groups = [{"params": self.masters, "base": rate}]
        if style:
            groups.append({"params": [*self.vlm.connector.style.parameters()], "base": rate * style})
        optimiser = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98))
        first, began = self._restore(optimiser, path), time.time()
        log = path.with_suffix(".log").open("a")
        for step in range(first, steps):
            for p, m in zip(self.lora, self.masters, strict=True):
                p.data.copy_(m)
            cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimiser.param_groups:
                group["lr"] = group["base"] * min(1.0, (step + 1) / 30) * (0.05 + 0.95 * cosine)
            value, tokens = loss(step)
            value.backward()
            for p, m in zip(self.lora, self.masters, strict=True):
                m.grad, p.grad = p.grad.float(), None
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if step % 10 == 0:
                pace = (time.time() - began) / (step - first + 1)
                losses = f"loss {value.item():.3f} plain {tokens.mean().item():.3f}"
                line = f"{path.stem} {step}/{steps} {losses} {pace:.2f} s/step"
                print(line, flush=True)
                print(line, file=log, flush=True)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
                self._save(optimiser, step + 1, path)
        for p, m in zip(self.lora, self.masters, strict=True):
            p.data.copy_(m)

    def _save(self, optimiser: torch.optim.Optimizer, step: int, path: Path) -> None:
        state = {
            "step": step,
            "connector": self.vlm.connector.state_dict(),
            "masters": [m.detach() for m in self.masters],
            "optimiser": optimiser.state_dict(),
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def _restore(self, optimiser: torch.optim.Optimizer, path: Path) -> int:
        if not path.exists():
            return 0
        saved = torch.load(path, weights_only=True)
        self.vlm.connector.load_state_dict(saved["connector"])
        for m, s in zip(self.masters, saved["masters"], strict=True):
            m.data.copy_(s)
        optimiser.load_state_dict(saved["optimiser"])
        return int(saved["step"])

    def load(self, path: Path) -> None:
        """Go on from what `export` wrote."""
        state = load_file(path)
        connector = {k.removeprefix("connector."): v.float() for k, v in state.items() if k.startswith("connector.")}
        self.vlm.connector.load_state_dict(connector)
        for key, master, scale in self._factors():
            master.data.copy_(state[key].float() / scale)

    def export(self, out: Path) -> None:
        """Write connector and LoRA factors (scale folded into B) as bfloat16 safetensors, atomically."""
        state = {f"connector.{k}": v for k, v in self.vlm.connector.state_dict().items()}
        state |= {key: master * scale for key, master, scale in self._factors()}
        temporary = out.with_suffix(".tmp")
        tensors = {key: v.detach().to(torch.bfloat16).contiguous() for key, v in state.items()}
        save_file(tensors, temporary, metadata={"rank": str(RANK), "format": "wherein-default-1"})
        temporary.replace(out)

    def _factors(self) -> Iterator[tuple[str, Tensor, float]]:
        """(name in the file, master, scale in the file) of each factor of the LoRA."""
        masters = {id(p): m for p, m in zip(self.lora, self.masters, strict=True)}
        for name, p in self.vlm.language_model.named_parameters():
            for factor, mark, scale in (("lora_A", "A", 1.0), ("lora_B", "B", ALPHA / RANK)):
                if factor in name:
                    yield name.split(f".{factor}")[0] + f".weight.{mark}", masters[id(p)], scale

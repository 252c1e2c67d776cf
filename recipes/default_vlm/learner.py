"""A LoRA on the language model (and the connector beside it), trained in its dtype with float32 masters, resumable."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import checkpoint
import torch
from asked import Asked, loss
from composites import workers
from peft import LoraConfig, get_peft_model
from recorded import Recorded
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wherein.vlm.default import DefaultVLM

RANK, ALPHA = 16, 32


class _Made(Dataset[Asked]):
    """`make(step)` for every step, for a loader whose processes make several at a time."""

    def __init__(self, make: Callable[[int], Asked], steps: int) -> None:
        self.make, self.steps = make, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Asked:
        asked = self.make(step)
        asked.layout  # noqa: B018 - laid out here, beside the training
        return asked


class Learner:
    """Wraps `vlm.language_model` in a LoRA of rank 16 on every linear map; `fit` trains it stage by stage."""

    def __init__(self, vlm: DefaultVLM) -> None:
        model = get_peft_model(
            vlm.language_model,
            LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0),
            autocast_adapter_dtype=False,
        )
        vlm.language_model = model.base_model.model
        if vlm.device.type == "cpu":  # whose fused kernel gains nothing on short rows, and goes back slower
            vlm.language_model.set_attn_implementation("eager")
        self.vlm, self.decode = vlm, Recorded(vlm) if vlm.device.type == "cuda" else None
        self.lora = [p for p in vlm.language_model.parameters() if p.requires_grad]
        self.masters = [p.detach().float().clone().requires_grad_(True) for p in self.lora]

    def fit(
        self,
        make: Callable[[int], Asked],
        steps: int,
        rate: float,
        style: float,
        path: Path,
        settings: Mapping[str, Any],
    ) -> None:
        """`steps` steps of Adam on the answers to what `make(step)` asks, the style path at `style` times the rate.

        `make` depends on the step alone; `settings`: what else must be the same for a stage to go on. A checkpoint
        every minute and at the end goes to `path`; a stage that was finished is loaded, else it goes on. A stage of 0
        steps reads and writes nothing. Raises InputError for a checkpoint of other settings.
        """
        if not steps:
            return
        optimiser, settings = self._optimiser(rate, style), {**settings, "steps": steps}
        first = self._restore(optimiser, path, settings)
        loader = DataLoader(_Made(make, steps), None, sampler=range(first, steps), num_workers=workers())
        began = saved = time.time()
        with path.with_suffix(".log").open("a") as log:
            for step, asked in enumerate(loader, first):
                value, tokens = self._step(optimiser, asked, share_of(step, steps))
                if step % 10 == 0:
                    pace = (time.time() - began) / (step - first + 1)
                    losses = f"loss {value.item():.3f} plain {tokens.mean().item():.3f}"
                    for stream in (sys.stdout, log):
                        print(f"{path.stem} {step}/{steps} {losses} {pace:.2f} s/step", file=stream, flush=True)
                if time.time() - saved > checkpoint.SAVE_AFTER or step + 1 == steps:
                    self._save(optimiser, path, settings, step + 1)
                    saved = time.time()
        self._show()

    def _optimiser(self, rate: float, style: float) -> torch.optim.Optimizer:
        """Adam for the LoRA's masters and, unless `style` is 0, the style path; `base`: the peak rate of a group."""
        groups = [{"params": self.masters, "base": rate}]
        if style:
            groups.append({"params": [*self.vlm.connector.style.parameters()], "base": rate * style})
        return torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99))

    def _step(self, optimiser: torch.optim.Optimizer, asked: Asked, share: float) -> tuple[Tensor, Tensor]:
        """One update at this share of each group's rate; the loss, and that of each token."""
        self._show()
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * share
        value, tokens = loss(self.vlm, asked, self.decode)
        value.backward()
        for p, m in zip(self.lora, self.masters, strict=True):
            m.grad, p.grad = p.grad.float(), None
        torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return value.detach(), tokens

    @torch.no_grad()
    def _show(self) -> None:
        """The model's factors become their masters, rounded."""
        torch._foreach_copy_(self.lora, self.masters)

    def _save(self, optimiser: torch.optim.Optimizer, path: Path, settings: Mapping[str, Any], step: int) -> None:
        checkpoint.save(
            path,
            settings,
            step,
            connector=self.vlm.connector.state_dict(),
            masters=[m.detach() for m in self.masters],
            optimiser=optimiser.state_dict(),
        )

    @torch.no_grad()
    def _restore(self, optimiser: torch.optim.Optimizer, path: Path, settings: Mapping[str, Any]) -> int:
        """Load the checkpoint if there is one; the steps done."""
        saved = checkpoint.restore(path, settings, self.vlm.device)
        if saved is None:
            return 0
        self.vlm.connector.load_state_dict(saved["connector"])
        torch._foreach_copy_(self.masters, saved["masters"])
        optimiser.load_state_dict(saved["optimiser"])
        self._show()
        return int(saved["step"])

    def load(self, path: Path) -> None:
        """Go on from the connector and the LoRA that `export` wrote."""
        state = load_file(path)
        own = {k.removeprefix("connector."): v.float() for k, v in state.items() if k.startswith("connector.")}
        self.vlm.connector.load_state_dict(own)
        for key, master, scale in self._factors():
            master.data.copy_(state[key].float() / scale)

    def export(self, out: Path) -> None:
        """Write connector and LoRA factors (scale folded into B) as bfloat16 safetensors, atomically."""
        state = {f"connector.{k}": v for k, v in self.vlm.connector.state_dict().items()}
        state |= {key: master * scale for key, master, scale in self._factors()}
        temporary = out.with_suffix(".tmp")
        tensors = {key: v.detach().to(torch.bfloat16).cpu().contiguous() for key, v in state.items()}
        # one entry: several stand in the file in any order, and the same weights would have another SHA-256
        save_file(tensors, temporary, metadata={"format": "wherein-default-1"})
        temporary.replace(out)

    def _factors(self) -> Iterator[tuple[str, Tensor, float]]:
        """(name in the file, master, scale in the file) of each factor of the LoRA."""
        masters = {id(p): m for p, m in zip(self.lora, self.masters, strict=True)}
        for name, p in self.vlm.language_model.named_parameters():
            for factor, mark, scale in (("lora_A", "A", 1.0), ("lora_B", "B", ALPHA / RANK)):
                if factor in name:
                    yield name.split(f".{factor}")[0] + f".weight.{mark}", masters[id(p)], scale


def share_of(step: int, steps: int) -> float:
    """The share of the peak rate at a step: a warm-up of 30 steps, then a cosine down to a twentieth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / 30) * (0.05 + 0.95 * cosine)

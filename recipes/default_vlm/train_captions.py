"""Train the default VLM's connector and LoRA on captions of self-made composites. See README.md for the command.

Composites are encoded once (the encoder is frozen) and kept as bfloat16 features in the work folder; a step costs
connector + language model only. A third of each batch are feature-level composites: a wallpaper's features with a
patch of cells pushed towards one classifier row, so that the connector keeps what the encoder knows of photographs.
Checkpoints every 50 steps; the same command resumes. The result is written with --out when the last step is done.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import captions
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from train_words import fit_words

from wherein.synth.backgrounds import Backgrounds
from wherein.synth.compose import AUGMENTED, compose
from wherein.synth.objects import ObjectBank
from wherein.vlm.default import DefaultVLM
from wherein.vlm.packing import Branch, pack

RANK, ALPHA = 16, 32
BATCH_WORDS = 48
CONNECTOR_RATE = 0.06  # of the LoRA's learning rate: a larger one forgets the words within a few steps
BATCH, PROTOTYPES = 6, 2


def encode_composites(
    vlm: DefaultVLM, bank: ObjectBank, grounds: Backgrounds, count: int, seed: int, path: Path
) -> list[Any]:
    """Compose and encode `count` images; features as int16 views of bfloat16 in `path`.npy, facts in .json."""
    facts_path = path.with_suffix(".json")
    if facts_path.exists():
        return json.loads(facts_path.read_text())
    rng, side = np.random.default_rng(seed), vlm.size[0]
    store = np.lib.format.open_memmap(
        path.with_suffix(".npy"), "w+", np.int16, (count, vlm.grid[0] * vlm.grid[1], vlm.feature_dim)
    )
    facts: list[Any] = []
    for start in range(0, count, 16):
        batch = [compose(grounds.sample(rng, side), bank, rng, AUGMENTED) for _ in range(min(16, count - start))]
        pixels, _ = vlm.prepare([c.image for c in batch])
        store[start : start + len(batch)] = vlm.features(pixels).view(torch.int16).numpy()
        for c in batch:
            facts.append([[o.name, captions.colour(bank[o.cutout].rgba), [float(v) for v in o.box]] for o in c.objects])
        if start % 800 == 0:
            print(f"encoded {start}/{count}", flush=True)
    facts_path.write_text(json.dumps(facts))
    return facts


def branches(facts: list[Any], names: tuple[str, ...], rng: np.random.Generator, vlm: DefaultVLM) -> list[Branch]:
    """Caption, one attribute per object where a colour dominates, presence of one object and of one absent name."""
    order = sorted(facts, key=lambda o: -(o[2][2] - o[2][0]) * (o[2][3] - o[2][1]))
    here = [o[0] for o in order]
    rows = [captions.caption(vlm.encode, here, vlm.tokenizer.eos_token_id)]
    rows += [captions.attribute(vlm.encode, name, word) for name, word, _ in order if word]
    rows.append(captions.presence(vlm.encode, here[rng.integers(len(here))], True))
    absent = names[rng.integers(len(names))]
    if absent not in here:
        rows.append(captions.presence(vlm.encode, absent, False))
    return rows


def prototype(ground: Tensor, vlm: DefaultVLM, rng: np.random.Generator) -> tuple[Tensor, list[str]]:
    """Push one to three elliptic patches of a background's features float[N, D] towards classifier rows."""
    rows, columns = vlm.grid
    weight, x = vlm.encoder.classifier.weight, ground.clone()
    y, xs = np.mgrid[0:rows, 0:columns]
    names, taken = [], np.zeros((rows, columns), bool)
    for _ in range(rng.integers(1, 4)):
        c = int(rng.integers(len(vlm.classes)))
        cy, cx, ry, rx = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(1, 4), rng.uniform(1, 4)
        cells = (((y - cy) / ry) ** 2 + ((xs - cx) / rx) ** 2 <= 1) & ~taken
        if cells.sum() < 2:
            continue
        taken |= cells
        rise = torch.from_numpy(rng.uniform(0.3, 1.0, cells.sum()) * rng.uniform(10, 26)).to(x.dtype)
        row = weight[c] / weight[c].float().pow(2).sum()
        x[torch.from_numpy(cells.reshape(-1))] += rise[:, None] * row
        names.append((int(cells.sum()), vlm.classes[c][rng.integers(2)]))
    return x.clamp(0, 6), [name for _, name in sorted(names, reverse=True)]


def train(args: argparse.Namespace) -> None:
    """Encode, train, resume, save."""
    torch.manual_seed(args.seed)
    work = Path(args.work)
    vlm = DefaultVLM(trained=False)
    bank = ObjectBank.load() + ObjectBank.from_folder(args.extra) if args.extra else ObjectBank.load()
    grounds = Backgrounds.from_folder(args.backgrounds) if args.backgrounds else Backgrounds.load()
    facts = encode_composites(vlm, bank, grounds, args.images, args.seed, work / "captions")
    features = torch.from_numpy(np.load(work / "captions.npy", mmap_mode="r")).view(torch.bfloat16)
    rng = np.random.default_rng(args.seed + 1)
    plain = torch.cat(
        [vlm.features(vlm.prepare([grounds.sample(rng, vlm.size[0]) for _ in range(16)])[0]) for _ in range(24)]
    )

    model = get_peft_model(
        vlm.language_model,
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0),
        autocast_adapter_dtype=False,
    )
    vlm.language_model = model.base_model.model
    vlm.connector.float().requires_grad_(True)
    vlm.connector.register_forward_pre_hook(lambda _, a: (a[0].float(),))
    vlm.connector.register_forward_hook(lambda _, __, out: out.to(torch.bfloat16))

    def batches(step: int) -> tuple[Tensor, list[list[str]]]:
        rng = np.random.default_rng([args.seed, 7, step])
        x, nouns = [], []
        for i in rng.integers(0, len(facts), BATCH_WORDS):
            x.append(features[int(i)])
            nouns.append([o[0] for o in facts[i]])
        for _ in range(BATCH_WORDS // 4):
            made, names = prototype(plain[rng.integers(len(plain))], vlm, rng)
            x.append(made)
            nouns.append(list(dict.fromkeys(names)))
        return torch.stack(x).float(), nouns

    fit_words(vlm, batches, args.word_steps, 1e-3, work / "words.pt")
    lora = [p for p in vlm.language_model.parameters() if p.requires_grad]
    masters = [p.detach().float().clone().requires_grad_(True) for p in lora]
    groups = [
        {"params": list(vlm.connector.parameters()), "lr": args.lr, "base": args.lr * CONNECTOR_RATE},
        {"params": masters, "lr": args.lr, "base": args.lr},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98))
    state, first, shared = work / "captions.pt", 0, vlm.encode(vlm.shared_prompt)
    log, began = (work / "captions.log").open("a"), time.time()
    if state.exists():
        saved = torch.load(state, weights_only=True)
        first = saved["step"]
        vlm.connector.load_state_dict(saved["connector"])
        for m, s in zip(masters, saved["masters"], strict=True):
            m.data.copy_(s)
        optimiser.load_state_dict(saved["optimiser"])
    for step in range(first, args.steps):
        rng = np.random.default_rng([args.seed, step])
        for p, m in zip(lora, masters, strict=True):
            p.data.copy_(m)
        index = (
            rng.integers(0, len(facts), BATCH)
            if step * BATCH >= len(facts)
            else np.arange(step * BATCH, (step + 1) * BATCH) % len(facts)
        )
        rows = [branches(facts[i], bank.names, rng, vlm) for i in index]
        x = [features[int(i)] for i in index]
        while len(x) < BATCH + PROTOTYPES:
            made, names = prototype(plain[rng.integers(len(plain))], vlm, rng)
            if names:
                x.append(made)
                rows.append(
                    branches([[n, None, [0, 0, 1, len(names) - k]] for k, n in enumerate(names)], bank.names, rng, vlm)
                )
        share = step / args.steps
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * min(1.0, (step + 1) / 30) * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * share)))
        loss, tokens = vlm.loss(torch.stack(x), pack(vlm.grid[0] * vlm.grid[1], shared, rows))
        loss.backward()
        for p, m in zip(lora, masters, strict=True):
            m.grad, p.grad = p.grad.float(), None
        torch.nn.utils.clip_grad_norm_(list(vlm.connector.parameters()) + masters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 10 == 0:
            pace = (time.time() - began) / (step - first + 1)
            line = f"step {step} loss {loss.item():.3f} plain {tokens.mean().item():.3f} {pace:.2f} s/step"
            print(line, flush=True)
            log.write(line + "\n")
            log.flush()
        if (step + 1) % 50 == 0 or step + 1 == args.steps:
            keep = {
                "step": step + 1,
                "connector": vlm.connector.state_dict(),
                "masters": [m.detach() for m in masters],
                "optimiser": optimiser.state_dict(),
            }
            torch.save(keep, state.with_suffix(".tmp"))
            state.with_suffix(".tmp").replace(state)
            save(vlm, lora, masters, Path(args.out))


def save(vlm: DefaultVLM, lora: list[Any], masters: list[Tensor], out: Path) -> None:
    """Write connector and LoRA factors (scale folded into B) as bfloat16 safetensors, atomically."""
    values = {id(p): m for p, m in zip(lora, masters, strict=True)}
    state = {
        f"connector.{k}": v.detach().to(torch.bfloat16).contiguous() for k, v in vlm.connector.state_dict().items()
    }
    for name, p in vlm.language_model.named_parameters():
        for factor, mark, scale in (("lora_A", "A", 1.0), ("lora_B", "B", ALPHA / RANK)):
            if factor in name:
                key = name.split(f".{factor}")[0] + f".weight.{mark}"
                state[key] = (values[id(p)].detach() * scale).to(torch.bfloat16).contiguous()
    temporary = out.with_suffix(".tmp")
    save_file(state, temporary, metadata={"rank": str(RANK), "format": "wherein-default-1"})
    temporary.replace(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--extra", help="folder of further cut-outs")
    parser.add_argument("--backgrounds", help="folder of wallpapers")
    parser.add_argument("--images", type=int, default=7200)
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--word-steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    train(parser.parse_args())

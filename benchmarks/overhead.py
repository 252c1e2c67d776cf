"""What does Wherein cost beside the plain model? The last line of stdout is JSON; nothing is downloaded.

The model is a published architecture with random weights and the real modelling code, made smaller by `--narrow` and
`--shallow` (published.py). Arithmetic, and so speed, does not depend on the values of weights.

generate_pin_to_plain: `model.generate`, greedy, a fixed number of new tokens, with PIN installed over without; where
transformers knows no such model (flamingo) the same as a loop over its own forward
uncached_to_cached: one PIN training step (recipe paper, a batch of 4) that runs the encoder first, over one that reads
its features from a store; preparing pixels counts in neither
one_phrase_to_forward, ten_phrases_to_forward: `Pin.ground`, from an image to boxes, over the plain model's forward on
prepared pixels and one prompt
counted_reduced, counted_published: parameters x tokens of such a step's forward, in G: the encoder's blocks, and
everything behind them without the output embeddings; the encoder's share of both; and the uncached_to_cached that
follows if nothing else took time: (encoder + 2 x rest) / (2 x rest), as gradients flow back through the rest only
step_samples_per_second: images of such a step from stored features, a second
peak_rss_mib: of this process after each part; device_mib: of a GPU, during each call, the weights included
Times are medians in seconds of calls made in turn; ratios are medians over the turns. Each part prints its line when it
is done, and what fails (`failed`) takes no other part with it.

The two counts have the same proportion up to the rounding of depths. Two things are in neither and weigh more in the
reduced model: attention's own products (tokens x tokens x width), which shrink by the width once where parameters
shrink by it twice, and the insert, whose network keeps its published size. `--narrow 2` is nearer the published model.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers as T
from cost import cost
from published import BUILDERS, PHRASES, Scale, build, parameters
from torch import Tensor, nn

from wherein.errors import InputError
from wherein.methods import adapter
from wherein.methods.pin import Pin, PinConfig, PositionalInsert
from wherein.phrases import noun_phrase
from wherein.training.boxes import RECIPES, BoxTask
from wherein.training.store import FeatureStore, Labelled
from wherein.vlm.hf import HFVLM

BATCH, STORED = 4, 8  # images a training step, and in the store
Works = Mapping[str, Callable[[], object]]


def random_pin(vlm: HFVLM) -> Pin:
    """An insert at the published seam that was never trained: as fast as one that was."""
    config = PinConfig(*vlm.grid, vlm.width("features"))
    module = PositionalInsert(config)
    nn.init.normal_(module.layers[-1].weight, std=0.02)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        return Pin(vlm, adapter.save(folder, "pin", vlm, config.to_dict(), module.state_dict(), ""))


def in_turn(vlm: HFVLM, works: Works, times: int) -> dict[str, Any]:
    """Median seconds of each call, made in turn after one that does not count; `x_to_y` of each to the first, `y`; on a
    GPU, under `device_mib`, the memory of each."""
    device = str(vlm.device)
    for work in works.values():
        cost(work, device)
    rounds = [{name: cost(work, device) for name, work in works.items()} for _ in range(times)]
    first, *others = works
    figures: dict[str, Any] = {name: median(taken[name].seconds for taken in rounds) for name in works}
    for name in others:
        figures[f"{name}_to_{first}"] = median(taken[name].seconds / taken[first].seconds for taken in rounds)
    if vlm.device.type == "cuda":
        figures["device_mib"] = {name: round(max(taken[name].mib for taken in rounds)) for name in works}
    return figures


def asking(vlm: HFVLM, image: np.ndarray[Any, Any]) -> dict[str, Tensor]:
    """The plain model's inputs for an image and the whole prompt of one phrase."""
    said = vlm.encode(vlm.shared_prompt) + vlm.encode(vlm.locate_prompt.format(phrase=noun_phrase(PHRASES[0])))
    return vlm._followed(vlm._on_device(vlm.prepare([image])[0]), said)


@torch.inference_mode()
def generate(vlm: HFVLM, inputs: Mapping[str, Tensor], new: int) -> object:
    """`new` greedy tokens by transformers' own loop, or by a plain one around the model's own forward."""
    if hasattr(vlm.model, "generate"):
        return vlm.model.generate(**inputs, do_sample=False, max_new_tokens=new, min_new_tokens=new)
    out, written = vlm.model(**inputs, use_cache=True, logits_to_keep=1), []
    for _ in range(new - 1):
        written.append(out.logits[:, -1:].argmax(-1))
        out = vlm.model(
            input_ids=written[-1],
            perceiver_embeddings=out.perceiver_embeddings,
            past_key_values=out.past_key_values,
            use_cache=True,
        )
    return written


def generation(vlm: HFVLM, new: int, times: int) -> dict[str, Any]:
    """generate with PIN and without."""
    pin, inputs = random_pin(vlm), asking(vlm, noise(vlm)(0).image)

    def with_pin() -> object:
        with pin.install(vlm.frame_of(*vlm.size)):
            return generate(vlm, inputs, new)

    figures = in_turn(vlm, {"generate_plain": lambda: generate(vlm, inputs, new), "generate_pin": with_pin}, times)
    figures["generate_pin_to_plain"] = figures.pop("generate_pin_to_generate_plain")
    return figures


def grounding(vlm: HFVLM, times: int) -> dict[str, Any]:
    """The forward, one phrase and ten."""
    pin, image = random_pin(vlm), noise(vlm)(0).image
    inputs = asking(vlm, image)

    @torch.inference_mode()
    def forward() -> object:
        return vlm.model(**inputs)

    works = {
        "forward": forward,
        "one_phrase": lambda: pin.ground(image, PHRASES[:1]),
        "ten_phrases": lambda: pin.ground(image, PHRASES),
    }
    return in_turn(vlm, works, times)


class Encoding(FeatureStore):
    """A store whose features are made anew each time they are asked for, from pixels that are prepared."""

    def features(self, indices: list[int]) -> Tensor:
        """x_v float[B, N, D_v] of some images."""
        prepared = [self.prepared[i] for i in indices]
        return self.vlm.features({name: torch.cat([one[name] for one in prepared]) for name in prepared[0]})

    def ready(self) -> Encoding:
        """With the pixels of every image."""
        self.prepared = [self.vlm.prepare([self.source(i).image])[0] for i in range(self.count)]
        return self


def noise(vlm: HFVLM) -> Callable[[int], Labelled]:
    """Images of noise with three boxes each."""
    width, height = vlm.size

    def source(index: int) -> Labelled:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        corners = np.sort(rng.uniform(0, 1, (3, 2, 2)), axis=1).reshape(3, 4) * ([width, height] * 2)
        return Labelled(image, tuple(zip(PHRASES[:3], corners, strict=True)))

    return source


def training(vlm: HFVLM, folder: Path, times: int) -> tuple[dict[str, Any], dict[str, int]]:
    """The same PIN step from stored features and with the encoder in it; the tokens of the latter (see `counting`)."""
    recipe = replace(RECIPES["paper"], batch=BATCH)
    stores = {
        "step_cached": FeatureStore(folder, vlm, noise(vlm), STORED, {}).build(),
        "step_uncached": Encoding(folder, vlm, noise(vlm), STORED, {}).build().ready(),  # type: ignore[attr-defined]
    }
    inserts = {name: Pin.begin(vlm, "paper") for name in stores}
    tasks = {
        name: BoxTask(vlm, inserts[name], recipe, store, store, tuple(PHRASES), seed=0)
        for name, store in stores.items()
    }
    losses: dict[str, float] = {}

    def step(name: str) -> None:
        task = tasks[name]
        task.module.zero_grad()
        loss = task.loss(1, 2)
        loss.backward()  # type: ignore[no-untyped-call]
        losses[name] = loss.item()

    with counting(vlm) as tokens:
        step("step_uncached")
    figures = in_turn(vlm, {name: lambda name=name: step(name) for name in tasks}, times)  # type: ignore[misc]
    figures["uncached_to_cached"] = figures.pop("step_uncached_to_step_cached")
    figures["step_samples_per_second"] = BATCH / figures["step_cached"]
    return {**figures, "loss_cached": losses["step_cached"], "loss_uncached": losses["step_uncached"]}, tokens


def numbered_as_one(name: str) -> str:
    """A parameter's or module's name without the number of its block."""
    return re.sub(r"\b\d+\b", "0", name)


@contextmanager
def counting(vlm: HFVLM) -> Iterator[dict[str, int]]:
    """How many tokens (or patches) pass each linear map or convolution inside the block, by `numbered_as_one` names."""
    passed: Counter[str] = Counter()
    counts: dict[str, int] = {}
    head, hooks = vlm.model.get_output_embeddings(), []

    def note(name: str) -> Callable[..., None]:
        def hook(module: Any, _: Any, out: Tensor) -> None:
            passed[name] += out.numel() // module.weight.shape[0]

        return hook

    for name, module in vlm.model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d) and module is not head:
            hooks.append(module.register_forward_hook(note(f"{name}.weight")))
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()
    for name, count in passed.items():
        counts[numbered_as_one(name)] = max(count, counts.get(numbered_as_one(name), 0))


def counted(vlm: HFVLM, shapes: Mapping[str, Tensor], tokens: Mapping[str, int]) -> dict[str, float]:
    """Parameters x tokens, in G, of the encoder's blocks and of the rest; what a cache should save by them."""
    sums = {True: 0.0, False: 0.0}
    for name, shape in shapes.items():
        in_encoder = name.startswith((vlm.blocks_path, vlm.patches_path))
        sums[in_encoder] += shape.numel() * tokens.get(numbered_as_one(name), 0) / 1e9
    encoder, rest = sums[True], sums[False]
    share, saved = encoder / (encoder + rest), 1 + encoder / (2 * rest)
    figures = {"encoder": encoder, "rest": rest, "encoder_share": share, "uncached_to_cached": saved}
    return {name: round(value, 3) for name, value in figures.items()}


def peak() -> int:
    """The most memory this process has held so far, MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))


def trained(vlm: HFVLM, args: argparse.Namespace, scale: Scale) -> dict[str, Any]:
    """`training`, and what its tokens cost by count."""
    with tempfile.TemporaryDirectory() as folder:
        figures, tokens = training(vlm, Path(folder), args.times)
    return {
        **figures,
        "counted_reduced": counted(vlm, parameters(args.family, scale), tokens),
        "counted_published": counted(vlm, parameters(args.family, Scale(1, 1)), tokens),
    }


def measure(args: argparse.Namespace, scale: Scale) -> dict[str, Any]:
    """Build, then measure part by part."""
    dtype = torch.bfloat16 if args.full or args.device != "cpu" else torch.float32
    vlm = build(args.family, scale, args.device, dtype)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "generation": lambda: generation(vlm, args.new, args.times),
        "grounding": lambda: grounding(vlm, args.times),
        "training": lambda: trained(vlm, args, scale),
    }
    figures: dict[str, Any] = {}
    device: dict[str, int] = {}
    memory, failed = {"model": peak()}, []
    for name, part in parts.items():
        try:
            found = part()
        except Exception:  # whatever it is, the other parts are worth having
            traceback.print_exc()
            failed.append(name)
            continue
        print(json.dumps({"part": name, **found}), flush=True)
        memory[name] = peak()
        device |= found.pop("device_mib", {})
        figures |= {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    return {
        **figures,
        "peak_rss_mib": memory,
        "device_mib": device,
        "failed": failed,
        "parameters": sum(p.numel() for p in vlm.parameters()),
        "image_and_prompt_tokens": asking(vlm, np.zeros((*vlm.size[::-1], 3), np.uint8))["input_ids"].shape[1],
        "dtype": str(dtype).removeprefix("torch."),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=BUILDERS, default="llava")
    parser.add_argument("--narrow", type=int, choices=(1, 2, 4), default=4, help="divides every width")
    parser.add_argument("--shallow", type=int, default=8, help="divides every depth")
    parser.add_argument("--full", action="store_true", help="the published sizes, in bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--new", type=int, default=20, help="tokens that generate writes")
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    T.logging.set_verbosity_error()
    scale = Scale(1, 1) if args.full else Scale(args.narrow, args.shallow)
    try:
        figures = measure(args, scale)
    except InputError as error:
        sys.exit(str(error))
    settings = {"family": args.family, "narrow": scale.narrow, "shallow": scale.shallow, "device": args.device}
    print(json.dumps({**figures, **settings, "threads": torch.get_num_threads()}))
    sys.exit(1 if figures["failed"] else 0)


if __name__ == "__main__":
    main()

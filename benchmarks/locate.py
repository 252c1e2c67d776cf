"""How long does a located phrase take? The last line of stdout is JSON; times are seconds, medians.

load: the built-in model from the cache, libraries already imported
one_phrase, ten_phrases: `ground` with PIN on one photograph, from pixels to boxes
forward_off, forward_on: the plain model's forward over an encoded image and a prompt, and the same with PIN inserted
answer_off, answer_on: prefix and ten constrained answers, without and with PIN
..._on_to_off: median ratio of alternating pairs of the two
one_phrase_to_forward: what a box costs, in plain forwards
peak_rss_mib: of this process
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import torch

from wherein import images
from wherein.boxtext import CODECS
from wherein.methods import adapter
from wherein.methods.pin import Pin, PinConfig, PositionalInsert
from wherein.phrases import noun_phrase
from wherein.vlm.default import DefaultVLM

PHOTO = "coffee.jpg"
PHRASES = ["cup", "spoon", "saucer", "table", "coffee", "plate", "napkin", "hand", "flower", "book"]


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def repeated(work: Callable[[], object], times: int) -> float:
    """Median seconds of a call, after one that does not count."""
    work()
    return median(seconds(work) for _ in range(times))


def alternating(off: Callable[[], object], on: Callable[[], object], times: int) -> tuple[float, float, float]:
    """Median seconds of both calls, made in turn, and the median of each pair's ratio on / off."""
    off()
    on()
    pairs = [(seconds(off), seconds(on)) for _ in range(times)]
    return median(a for a, _ in pairs), median(b for _, b in pairs), median(b / a for a, b in pairs)


def random_pin(vlm: DefaultVLM) -> Pin:
    """An insert that was never trained: as fast as one that was."""
    seam = "connector_tokens"
    config = PinConfig(*vlm.grid, vlm.width(seam), code="2d", codec=vlm.codec, seam=seam)
    module = PositionalInsert(config)
    torch.nn.init.normal_(module.layers[-1].weight, std=0.02)
    with tempfile.TemporaryDirectory() as folder:
        return Pin(vlm, adapter.save(folder, "pin", vlm, config.to_dict(), module.state_dict(), ""))


def measure(vlm: DefaultVLM, pin: Pin, photo: Path, times: int) -> dict[str, float]:
    """Every figure but the time to load and the memory."""
    image = images.load(photo)
    x_v = vlm.features(vlm.prepare([image])[0])
    prompts = [vlm.locate_prompt.format(phrase=noun_phrase(phrase)) for phrase in PHRASES]
    grammar = CODECS[pin.config.codec].grammar(*vlm.size, lead=" ")
    ids = torch.tensor([vlm.encode(vlm.shared_prompt + prompts[0])], device=vlm.device)

    @torch.inference_mode()
    def forward() -> Any:
        text = vlm.language_model.get_input_embeddings()(ids)
        return vlm.language_model(inputs_embeds=torch.cat([vlm.tokens(x_v), text], dim=1), logits_to_keep=1)

    @torch.inference_mode()
    def answer() -> Any:
        return vlm.answer(vlm.prefix(x_v), [0] * len(prompts), prompts, grammar)

    def installed(work: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            with pin.install():
                return work()

        return run

    figures = {
        "one_phrase": repeated(lambda: pin.ground(image, PHRASES[:1]), times),
        "ten_phrases": repeated(lambda: pin.ground(image, PHRASES), times),
    }
    for name, work in (("forward", forward), ("answer", answer)):
        off, on, ratio = alternating(work, installed(work), times)
        figures.update({f"{name}_off": off, f"{name}_on": on, f"{name}_on_to_off": ratio})
    figures["one_phrase_to_forward"] = figures["one_phrase"] / figures["forward_off"]
    return figures


def main() -> None:
    """Parse, load, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=Path(str(files("wherein") / "examples" / PHOTO)))
    parser.add_argument("--adapter", help="a PIN; default: the built-in one")
    parser.add_argument("--untrained", action="store_true", help="without weights of ours: the same speed")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: what is faster here")
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    import transformers.models.llama.modeling_llama  # noqa: F401 - its import is not the model's loading

    began = time.perf_counter()
    vlm = DefaultVLM(trained=not args.untrained, dtype=args.dtype and getattr(torch, args.dtype))
    load = time.perf_counter() - began
    pin = random_pin(vlm) if args.untrained else Pin(vlm, args.adapter)
    figures = {"load": load, **measure(vlm, pin, args.image, args.times)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    dtype = str(vlm.dtype).removeprefix("torch.")
    print(json.dumps({**rounded, "peak_rss_mib": round(peak), "threads": torch.get_num_threads(), "dtype": dtype}))


if __name__ == "__main__":
    main()

"""What does it cost to read attention beside the fused kernel? The last line of stdout is JSON; nothing is downloaded.

LLaVA-1.5 (576 image tokens) and LLaVA-NeXT (2,880) of published depth and random weights, every width over `--narrow`.
A grounding call runs the encoder, the image and one phrase, and reads the row of the phrase's last token in all heads;
it is timed beside the plain model on the same text, and beside what a user would do without it: the same model with
eager attention and `output_attentions=True`, which builds a matrix of all tokens by all tokens a head and layer.

eager_to_capture, eager_to_stopped, capture_to_plain, stopped_to_plain: medians of ratios over turns made one after
another; `stopped`, a grounding call with heads as published, reads three of layer 14 (of 32) and runs no further
extra_mib: how much further a fresh process grew during a call than during the plain one, which makes the same cache; on
a GPU (bfloat16), how much more of its memory was held at most
share_of_eager: capture's extra over eager's
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from cost import cost
from published import Scale, build

from wherein.methods.heads.canvas import Canvas
from wherein.methods.heads.maps import attention_maps
from wherein.vlm.hf import HFVLM

FAMILIES = {"llava": (336, 336), "llava_next": (672, 672)}
HEADS = [(14, 0), (14, 1), (14, 2)]
TEXT = " the cup on the table."
Calls = dict[str, Callable[[], Any]]


def calls(vlm: HFVLM, side: tuple[int, int]) -> Calls:
    """The plain forward, ours with all heads and with three, and eager's, from the same prepared image."""
    image = np.random.default_rng(0).integers(0, 256, (*side, 3), np.uint8)
    pixels, (frame,) = vlm.prepare([image])
    pixels = vlm._on_device(pixels)
    canvas = Canvas(vlm, frame)
    bare = vlm._on_device(vlm._processed(frame.width, frame.height, True))
    asked = {**bare, **{key: value for key, value in pixels.items() if key not in bare or "pixel" in key}}
    asked = vlm._followed(asked, vlm.encode(TEXT))

    def plain(**more: Any) -> Any:
        """The model's own forward on image and phrase."""
        return vlm.model(**asked, use_cache=True, logits_to_keep=1, **more)

    def eager() -> Any:
        """All matrices, of which one row each is wanted."""
        decoder, before = vlm.model.get_decoder(), vlm.model.get_decoder().config._attn_implementation
        decoder.set_attn_implementation("eager")
        try:
            return torch.stack([one[0, :, -1] for one in plain(output_attentions=True).attentions])
        finally:
            decoder.set_attn_implementation(before)

    return {
        "plain": plain,
        "capture": lambda: attention_maps(vlm, vlm.features(pixels), canvas, [[TEXT]]),
        "stopped": lambda: attention_maps(vlm, vlm.features(pixels), canvas, [[TEXT]], HEADS),
        "eager": eager,
    }


def grown(call: Callable[[], Any]) -> float:
    """By how many MiB this process grows at most while `call` runs; it must be the first large one, or freed memory
    that the allocator keeps hides what is needed."""
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / 1024


def grown_alone(family: str, narrow: int, name: str) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--family", family, "--narrow", str(narrow), "--only", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def _status(field: str) -> int:
    """A field of /proc/self/status, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


@torch.inference_mode()
def measure(family: str, narrow: int, turns: int, device: str) -> dict[str, Any]:
    """The figures of one family."""
    on_cpu = device == "cpu"
    vlm = build(family, Scale(narrow, 1), device, torch.float32 if on_cpu else torch.bfloat16)
    works = calls(vlm, FAMILIES[family])
    tokens = len(vlm.image_tokens(vlm.frame_of(*FAMILIES[family])).positions)
    extra = {name: grown_alone(family, narrow, name) for name in works} if on_cpu else {}
    for work in works.values():
        work()
    rounds = [{name: cost(work, device) for name, work in works.items()} for _ in range(turns)]
    extra = extra or {name: max(taken[name].mib for taken in rounds) for name in works}

    def ratio(one: str, two: str) -> float:
        """The median of the ratios of each turn."""
        return round(median(taken[one].seconds / taken[two].seconds for taken in rounds), 3)

    beyond = {name: round(max(0.0, extra[name] - extra["plain"]), 1) for name in ("capture", "stopped", "eager")}
    return {
        "image_tokens": tokens,
        "seconds": {name: round(median(taken[name].seconds for taken in rounds), 4) for name in works},
        "eager_to_capture": ratio("eager", "capture"),
        "eager_to_stopped": ratio("eager", "stopped"),
        "capture_to_plain": ratio("capture", "plain"),
        "stopped_to_plain": ratio("stopped", "plain"),
        "extra_mib": beyond,
        "share_of_eager": round(beyond["capture"] / max(beyond["eager"], 1e-6), 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, action="append", help="one of them only; may be repeated")
    parser.add_argument("--narrow", type=int, default=8, help="what widths and numbers of heads are divided by")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", help="run this call once and print by how many MiB the process grew")
    given = parser.parse_args()
    if given.only:
        (family,) = given.family
        with torch.inference_mode():
            vlm = build(family, Scale(given.narrow, 1), "cpu", torch.float32)
            print(grown(calls(vlm, FAMILIES[family])[given.only]))
        return
    found: dict[str, Any] = {
        "narrow": given.narrow,
        "device": given.device,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
    }
    for family in given.family or FAMILIES:
        found[family] = measure(family, given.narrow, given.turns, given.device)
        print(family, json.dumps(found[family], indent=1), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

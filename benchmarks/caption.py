"""What do the places of a caption's words cost? The last line of stdout is JSON; times are seconds, medians.

trace: a greedy caption of one photograph with a place for each word, from what the encoder says of it
plain: the same decoding, and its text alone
generate: the same text by transformers' own `generate`, which knows nothing of places
see: the photograph through the vision encoder, which all three need before
trace_to_plain, trace_to_generate: median ratios of calls made in turn
tokens: of the caption; all go on to this length, since an untrained model may end at once
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import torch

from wherein import images
from wherein.methods.pixel import Pixel
from wherein.methods.pixel.language import Reading
from wherein.methods.pixel.method import begin
from wherein.methods.pixel.prompts import Prompts
from wherein.methods.pixel.reader import CAPTION, PixelReader, Seen
from wherein.methods.pixel.writing import write
from wherein.vlm import load_vlm

NEVER = -2  # an end that no token is


def reading(reader: PixelReader, seen: Seen) -> Reading:
    """What the language model is shown before it writes."""
    device, side = reader.model.device, float(reader.model.config.side)
    whole = Prompts.whole(torch.full((1, 2), side, device=device))
    visual = reader.model.visual(seen.features, torch.zeros(1, dtype=torch.long, device=device), whole)
    return Reading(reader.model.language_model, visual, reader.texts([CAPTION]))


def ways(reader: PixelReader, seen: Seen, tokens: int) -> dict[str, Callable[[], str]]:
    """The three ways to the same text; each makes the language model take tokens + 1 steps."""
    model, tokenizer = reader.model, reader.tokenizer

    def trace() -> str:
        return reader.caption(seen, longest=tokens).text

    @torch.inference_mode()
    def plain() -> str:
        said = write(reading(reader, seen), model.config.begin_token_id, NEVER, tokens)[0].tokens
        return str(tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @torch.inference_mode()
    def generate() -> str:
        shown = reading(reader, seen)
        table = model.language_model.get_input_embeddings()
        begun = table(torch.tensor([[model.config.begin_token_id]], device=model.device))
        embedded = torch.cat([shown.shown, begun], dim=1)
        said = model.language_model.generate(
            inputs_embeds=embedded,
            attention_mask=torch.ones(embedded.shape[:2], device=model.device, dtype=torch.long),
            max_new_tokens=tokens + 1,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, :tokens]
        return str(tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    return {"trace": trace, "plain": plain, "generate": generate}


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call and of what it left a GPU to do."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(reader: PixelReader, see: Callable[[], Seen], tokens: int, times: int) -> dict[str, Any]:
    """Every figure; a check first that all ways write the same."""
    works = ways(reader, see(), tokens)
    texts = {name: work() for name, work in works.items()}
    if len(set(texts.values())) > 1:
        raise SystemExit(f"error: the ways write different captions: {texts}")
    rounds = [{name: seconds(work) for name, work in {**works, "see": see}.items()} for _ in range(times)]
    figures = {name: median(one[name] for one in rounds) for name in rounds[0]}
    for name in ("plain", "generate"):
        figures[f"trace_to_{name}"] = median(one["trace"] / one[name] for one in rounds)
    return {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    """Parse, load, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=Path(str(files("wherein") / "examples" / "coffee.jpg")))
    parser.add_argument("--adapter", help="a pixel-aligned model; default: the built-in one")
    parser.add_argument("--untrained", action="store_true", help="a model that was never trained: the same speed")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto takes the fastest there is")
    args = parser.parse_args()
    vlm = load_vlm("default", args.device)
    reader = begin(vlm, tokens=16, lora_rank=8) if args.untrained else Pixel(vlm, args.adapter).reader
    reader.model.config.end_token_id = NEVER
    image = images.load(args.image)
    figures = measure(reader, lambda: reader.see(image), args.tokens, args.times)
    about = {"tokens": args.tokens, "device": str(vlm.device), "threads": torch.get_num_threads()}
    print(json.dumps({**figures, **about}))


if __name__ == "__main__":
    main()

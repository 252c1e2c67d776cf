"""What does Wherein cost beside the plain model? The last line of stdout is JSON; nothing is downloaded.

The model is a published architecture with random weights and the real modelling code, made smaller by one rule for all
its parts: every width over `--narrow`, every depth over `--shallow`, the vocabulary over both. The image, its tokens
and the width of an attention head stay. Arithmetic, and so speed, does not depend on the values of weights.

generate_pin_to_plain: `model.generate`, greedy, a fixed number of new tokens, with PIN installed over without; where
transformers knows no such model (flamingo) the same as a loop over its own forward
uncached_to_cached: one PIN training step (recipe paper, a batch of 4) that runs the encoder first, over one that reads
its features from a store; preparing pixels counts in neither
one_phrase_to_forward, ten_phrases_to_forward: `Pin.ground`, from an image to boxes, over the plain model's forward on
prepared pixels and one prompt
counted_reduced, counted_published: parameters x tokens of such a step's forward, in G: the encoder's blocks, and
everything behind them without the output embeddings; the encoder's share of both; and the uncached_to_cached that
follows if nothing else took time: (encoder + 2 x rest) / (2 x rest), as gradients flow back through the rest only
peak_rss_mib: of this process after each part; peak_device_mib: of a GPU, over all of them
Times are medians in seconds of calls made in turn; ratios are medians over the turns.

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
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers as T
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from wherein.errors import InputError
from wherein.methods import adapter
from wherein.methods.pin import Pin, PinConfig, PositionalInsert
from wherein.methods.pin.train import RECIPES, PinTask
from wherein.phrases import noun_phrase
from wherein.training.store import FeatureStore, Labelled
from wherein.vlm.families import FAMILIES
from wherein.vlm.families.flamingo import FlamingoProcessor
from wherein.vlm.flamingo import OpenFlamingo
from wherein.vlm.flamingo.mpt import MosaicGpt, MosaicGptConfig
from wherein.vlm.flamingo.resampler import PerceiverResampler
from wherein.vlm.hf import HFVLM, QUESTION
from wherein.vlm.loading import processor_class

PHRASES = ["cup", "spoon", "saucer", "table", "coffee", "plate", "napkin", "hand", "flower", "book"]
BATCH, STORED = 4, 8  # images a training step, and in the store
HEADROOM = 1.8  # of the weights: the activations of a training step
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
Built = tuple[Any, Any]  # (model, processor)
Works = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Scale:
    """What the published sizes are divided by: 1, 1 is the published model."""

    narrow: int
    shallow: int

    def wide(self, width: int) -> int:
        """A width, or a number of heads."""
        return width // self.narrow

    def deep(self, blocks: int) -> int:
        """A number of blocks."""
        return max(1, round(blocks / self.shallow))

    def words(self, vocabulary: int) -> int:
        """So many that the head keeps its part in the whole; never fewer than the tokenizer here has."""
        return max(512, vocabulary // (self.narrow * self.shallow))


# The published configurations.


def tokenizer(*special: str, **roles: str) -> Any:
    """Byte-level BPE with digits apart that has the words of the prompts here; `special` tokens follow its first 3."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    corpus = [f"USER: \n{QUESTION} ASSISTANT: In the image is a {' a '.join(PHRASES)} located at [05,30] not."] * 4
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<pad>", "<s>", "</s>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return T.PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", extra_special_tokens=roles or None
    )


def clip_large(scale: Scale, side: int) -> dict[str, Any]:
    """CLIP ViT-L/14."""
    return {
        "hidden_size": scale.wide(1024),
        "intermediate_size": scale.wide(4096),
        "num_hidden_layers": scale.deep(24),
        "num_attention_heads": scale.wide(16),
        "image_size": side,
        "patch_size": 14,
    }


def clip_images(side: int) -> Any:
    """CLIP's image processor."""
    return T.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def llava(scale: Scale) -> Built:
    """LLaVA-1.5-7B: CLIP ViT-L/14 at 336 px, Vicuna-7B."""
    words = tokenizer("<image>", image_token="<image>")
    text = {
        "model_type": "llama",
        "vocab_size": scale.words(32064),
        "hidden_size": scale.wide(4096),
        "intermediate_size": scale.wide(11008),
        "num_hidden_layers": scale.deep(32),
        "num_attention_heads": scale.wide(32),
        "num_key_value_heads": scale.wide(32),
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        **SPECIAL,
    }
    config = T.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **clip_large(scale, 336)},
        text_config=text,
        image_token_id=words.image_token_id,
        vision_feature_layer=-2,
    )
    processor = T.LlavaProcessor(
        clip_images(336),
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return T.LlavaForConditionalGeneration(config), processor


def blip2(scale: Scale) -> Built:
    """BLIP-2 OPT-2.7B: EVA ViT-g/14 at 224 px, a Q-Former with 32 queries."""
    words, width = tokenizer("<image>"), scale.wide(1408)
    vision = {
        "hidden_size": width,
        "intermediate_size": scale.wide(6144),
        "num_hidden_layers": scale.deep(39),
        "num_attention_heads": scale.wide(16),
        "image_size": 224,
        "patch_size": 14,
    }
    queries = {
        "hidden_size": scale.wide(768),
        "intermediate_size": scale.wide(3072),
        "num_hidden_layers": scale.deep(12),
        "num_attention_heads": scale.wide(12),
        "encoder_hidden_size": width,
        "cross_attention_frequency": 2,
        "vocab_size": scale.words(30522),
    }
    text = T.OPTConfig(
        vocab_size=scale.words(50304),
        hidden_size=scale.wide(2560),
        ffn_dim=scale.wide(10240),
        num_hidden_layers=scale.deep(32),
        num_attention_heads=scale.wide(32),
        word_embed_proj_dim=scale.wide(2560),
        max_position_embeddings=2048,
        **SPECIAL,
    )
    config = T.Blip2Config(
        vision_config=vision,
        qformer_config=queries,
        text_config=text,
        num_query_tokens=32,
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    images = T.BlipImageProcessorPil(size={"height": 224, "width": 224})
    return T.Blip2ForConditionalGeneration(config), T.Blip2Processor(images, words, num_query_tokens=32)


def qwen2_5_vl(scale: Scale) -> Built:
    """Qwen2.5-VL-7B; 448 x 448 pixels are 1024 patches and 256 tokens."""
    marks = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    words = tokenizer(*marks.values(), "<|im_start|>", "<|im_end|>", **marks)
    depth, width = scale.deep(32), scale.wide(3584)
    vision = {
        "depth": depth,
        "hidden_size": scale.wide(1280),
        "intermediate_size": scale.wide(3420),
        "num_heads": scale.wide(16),
        "out_hidden_size": width,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [(i + 1) * depth // min(4, depth) - 1 for i in range(min(4, depth))],
    }
    text = {
        "vocab_size": scale.words(152064),
        "hidden_size": width,
        "intermediate_size": scale.wide(18944),
        "num_hidden_layers": scale.deep(28),
        "num_attention_heads": scale.wide(28),
        "num_key_value_heads": scale.wide(4),
        "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        **SPECIAL,
    }
    ids = {f"{name}_id": words.convert_tokens_to_ids(token) for name, token in marks.items()}
    config = T.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    sizes = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}
    images = T.Qwen2VLImageProcessorPil(size=sizes, patch_size=14, merge_size=2)
    return T.Qwen2_5_VLForConditionalGeneration(config), processor_class("Qwen2_5_VLProcessor")(images, words)


def flamingo(scale: Scale) -> Built:
    """OpenFlamingo-3B: CLIP ViT-L/14 at 224 px, MPT-1B with cross-attention before each block.

    The perceiver shrinks too, but not the inner width of the cross-attention, 512.
    """
    words = tokenizer("<|endofchunk|>", "<image>")
    words.add_special_tokens({"additional_special_tokens": ["<|endofchunk|>", "<image>"]})
    encoder = T.CLIPVisionModel(T.CLIPVisionConfig(**clip_large(scale, 224)))
    language = MosaicGpt(MosaicGptConfig(scale.words(50434), scale.wide(2048), scale.wide(16), scale.deep(24)))
    model = OpenFlamingo(encoder, language, 1, words.convert_tokens_to_ids("<image>"))
    model.perceiver = PerceiverResampler(scale.wide(1024), depth=scale.deep(6), heads=scale.wide(8))
    return model, FlamingoProcessor(clip_images(224), words)


BUILDERS: dict[str, Callable[[Scale], Built]] = {
    "llava": llava,
    "blip2": blip2,
    "qwen2_5_vl": qwen2_5_vl,
    "flamingo": flamingo,
}


def parameters(family: str, scale: Scale) -> dict[str, Tensor]:
    """The shapes of a model's parameters, without making them."""
    with torch.device("meta"):
        return dict(BUILDERS[family](scale)[0].named_parameters())


def check_memory(need: float, device: str) -> None:
    """Raise InputError where so many bytes are not free, before a machine is filled up."""
    if device != "cpu":
        if not torch.cuda.is_available():
            raise InputError(f"There is no device {device!r} here: use --device cpu without --full.")
        free = torch.cuda.mem_get_info(device)[0]
    else:
        meminfo = Path("/proc/meminfo")
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines()) if meminfo.exists() else {}
        free = int(lines.get("MemAvailable", f"{2**50} kB").split()[0]) * 1024
    if need > free:
        raise InputError(
            f"This model needs about {need / 2**30:.1f} GiB and {device} has {free / 2**30:.1f} GiB free: leave out "
            "--full, or run on a machine with more."
        )


@contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    """What is made inside the block has this dtype and is on this device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def build(family: str, scale: Scale, device: str, dtype: torch.dtype) -> HFVLM:
    """The model with random weights, served as its family is."""
    shapes = parameters(family, scale)
    check_memory(HEADROOM * dtype.itemsize * sum(p.numel() for p in shapes.values()), device)
    torch.manual_seed(0)
    with defaults(dtype, device):
        model, processor = BUILDERS[family](scale)
    serves = next(one for one in FAMILIES if one.family == family)
    return serves(model, processor, f"{family}-random")


def random_pin(vlm: HFVLM) -> Pin:
    """An insert at the published seam that was never trained: as fast as one that was."""
    config = PinConfig(*vlm.grid, vlm.width("features"))
    module = PositionalInsert(config)
    nn.init.normal_(module.layers[-1].weight, std=0.02)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        return Pin(vlm, adapter.save(folder, "pin", vlm, config.to_dict(), module.state_dict(), ""))


# What is measured.


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call, a GPU's work included."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turn(works: Works, times: int) -> dict[str, float]:
    """Median seconds of each call, made in turn after one that does not count; `x_to_y` of each to the first, `y`."""
    for work in works.values():
        seconds(work)
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(times)]
    first, *others = works
    medians = {name: median(taken[name] for taken in rounds) for name in works}
    return medians | {f"{name}_to_{first}": median(taken[name] / taken[first] for taken in rounds) for name in others}


def asking(vlm: HFVLM, image: np.ndarray[Any, Any]) -> dict[str, Tensor]:
    """The plain model's inputs for an image and the whole prompt of one phrase."""
    inputs = {name: value.to(vlm.device) for name, value in vlm.prepare([image])[0].items()}
    said = vlm.encode(vlm.shared_prompt) + vlm.encode(vlm.locate_prompt.format(phrase=noun_phrase(PHRASES[0])))
    ids = torch.tensor([said], device=vlm.device)
    shape = inputs["input_ids"].shape
    more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name, value in inputs.items():
        if value.is_floating_point():
            inputs[name] = value.to(vlm.dtype)
        elif value.shape == shape:
            inputs[name] = torch.cat([value, more.get(name, torch.zeros_like(ids))], dim=1)
    return inputs


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


def inference(vlm: HFVLM, pin: Pin, new: int, times: int) -> dict[str, float]:
    """generate with PIN and without; the forward, one phrase and ten."""
    width, height = vlm.size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    inputs = asking(vlm, image)

    @torch.inference_mode()
    def forward() -> object:
        return vlm.model(**inputs)

    def with_pin() -> object:
        with pin.install(vlm.frame_of(width, height)):
            return generate(vlm, inputs, new)

    plain = {"generate_plain": lambda: generate(vlm, inputs, new), "generate_pin": with_pin}
    grounding = {
        "forward": forward,
        "one_phrase": lambda: pin.ground(image, PHRASES[:1]),
        "ten_phrases": lambda: pin.ground(image, PHRASES),
    }
    figures = in_turn(plain, times)
    figures["generate_pin_to_plain"] = figures.pop("generate_pin_to_generate_plain")
    return {**figures, "peak_rss_plain_mib": peak(), **in_turn(grounding, times)}


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


def training(vlm: HFVLM, folder: Path, times: int) -> tuple[dict[str, float], dict[str, int]]:
    """The same PIN step from stored features and with the encoder in it; the tokens of the latter (see `counting`)."""
    recipe = replace(RECIPES["paper"], batch=BATCH)
    stores = {
        "step_cached": FeatureStore(folder, vlm, noise(vlm), STORED, {}).build(),
        "step_uncached": Encoding(folder, vlm, noise(vlm), STORED, {}).build().ready(),  # type: ignore[attr-defined]
    }
    tasks = {name: PinTask(vlm, recipe, store, store, tuple(PHRASES), seed=0) for name, store in stores.items()}
    losses: dict[str, float] = {}

    def step(name: str) -> None:
        task = tasks[name]
        task.module.zero_grad()
        loss = task.loss(1, 2)
        loss.backward()  # type: ignore[no-untyped-call]
        losses[name] = loss.item()

    with counting(vlm) as tokens:
        step("step_uncached")
    figures = in_turn({name: lambda name=name: step(name) for name in tasks}, times)  # type: ignore[misc]
    figures["uncached_to_cached"] = figures.pop("step_uncached_to_step_cached")
    return {**figures, "loss_cached": losses["step_cached"], "loss_uncached": losses["step_uncached"]}, tokens


# What would follow from sizes alone.


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


def measure(args: argparse.Namespace, scale: Scale) -> dict[str, Any]:
    """Build, measure, count."""
    dtype = torch.bfloat16 if args.full or args.device != "cpu" else torch.float32
    vlm = build(args.family, scale, args.device, dtype)
    made = peak()
    figures = inference(vlm, random_pin(vlm), args.new, args.times)
    ground = peak()
    with tempfile.TemporaryDirectory() as folder:
        steps, tokens = training(vlm, Path(folder), args.times)
    figures = {name: round(value, 4) for name, value in {**figures, **steps}.items()}
    memory = {"model": made, "plain": figures.pop("peak_rss_plain_mib"), "ground": ground, "train": peak()}
    if args.device != "cpu":
        figures["peak_device_mib"] = round(torch.cuda.max_memory_allocated(args.device) / 2**20)
    return {
        **figures,
        "peak_rss_mib": memory,
        "counted_reduced": counted(vlm, parameters(args.family, scale), tokens),
        "counted_published": counted(vlm, parameters(args.family, Scale(1, 1)), tokens),
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


if __name__ == "__main__":
    main()

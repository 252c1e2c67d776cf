"""A frozen VLM so small that it is built in a moment: random weights, real tokenizer, real language model code.

Loaded by the fixture `tiny_vlm` in conftest.py; a test makes another one with `type(tiny_vlm)(...)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from wherein.geometry import Frame
from wherein.vlm.base import Cells, FrozenVLM, ImageTokens
from wherein.vlm.prefix import Prefix
from wherein.vlm.seams import Seams

END = "<|end|>"
WIDTH, FEATURES = 32, 8


def tokenizer() -> Any:
    """Byte-level BPE that splits digits, as the default model's does; " [" and " nowhere" are tokens of their own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    corpus = [" In the image is a red cat located at [05,30] nowhere."] * 4
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        corpus,
        trainers.BpeTrainer(vocab_size=320, special_tokens=[END], initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END)


class TinyVLM(FrozenVLM):
    """Mean colours of a grid of cells -> 8 features -> 12 tokens -> a random Llama of two layers; float32 all through.

    encoded: how many images went through the encoder.
    """

    codec = "00-99"
    best_method = "centre"
    shared_prompt = " In the image is"
    caption_prompt = ""
    locate_prompt = " {phrase} located at"
    keeps_cells = takes_rows = interleaves = True

    def __init__(
        self, name: str = "tiny", grid: tuple[int, int] = (3, 4), size: tuple[int, int] = (64, 48), layers: int = 2
    ) -> None:
        self.name, self.grid, self.size, self.feature_dim, self.encoded = name, grid, size, FEATURES, 0
        self.tokenizer = tokenizer()
        state = torch.random.get_rng_state()
        torch.manual_seed(0)
        projection = torch.randn(3, FEATURES)
        self.connector = nn.Sequential(nn.Linear(FEATURES, 16), nn.GELU(), nn.Linear(16, WIDTH))
        config = LlamaConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,  # large, so that answers depend on what is asked
            bos_token_id=None,
            eos_token_id=self.tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
        self.language_model = LlamaForCausalLM(config)
        torch.random.set_rng_state(state)
        self.encoder_blocks = nn.Sequential(nn.Linear(3, FEATURES, bias=False))
        self.encoder_blocks[0].weight.data = projection.T.contiguous()
        for part in (self.encoder_blocks, self.connector, self.language_model):
            part.eval().requires_grad_(False)
        model = self.language_model
        self.seams = Seams.of_decoder(model.get_decoder(), model.get_input_embeddings(), self.connector)

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, list[Frame]]:
        squashed = [np.asarray(Image.fromarray(image).resize(self.size)) for image in images]
        frames = [self.frame_of(image.shape[1], image.shape[0]) for image in images]
        return torch.from_numpy(np.stack(squashed)).permute(0, 3, 1, 2).float() / 255, frames

    def frame_of(self, width: int, height: int) -> Frame:
        return Frame.identity(width, height).resize(*self.size)

    def features(self, pixels: Tensor) -> Tensor:
        self.encoded += len(pixels)
        colours = nn.functional.adaptive_avg_pool2d(pixels, self.grid)
        return self.encoder_blocks(colours.flatten(2).transpose(1, 2))

    def tokens(self, x_v: Tensor) -> Tensor:
        return self.connector(x_v.to(self.dtype))

    def prefix(
        self,
        x_v: Tensor,
        frames: Any = None,
        cells: Tensor | None = None,
        bare: bool = False,
        before: Prefix | None = None,
        text: Sequence[int] = (),
    ) -> Prefix:
        whole, text = self.grid[0] * self.grid[1], [*([] if bare else self.encode(self.shared_prompt)), *text]
        return Prefix.behind(self.language_model, self.tokens(x_v), text, whole, cells, before)

    def cells(self, frame: Frame | None = None) -> Cells:
        return Cells.raster(frame or Frame.identity(*self.size), self.grid)

    def image_tokens(self, frame: Frame | None = None) -> ImageTokens:
        return ImageTokens.raster(frame or Frame.identity(*self.size), self.grid)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.connector.named_parameters()
        yield from self.language_model.named_parameters()

"""Pixel-aligned models so small that they are built in a moment: random weights, the real code of their parts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers as T

from wherein.methods.pixel.config import PixelLMConfig
from wherein.methods.pixel.model import PixelLM

SIDE, PATCH = 64, 16
PAD, END, BEGIN = 0, 1, 2
KINDS = ("seq2seq", "decoder")


def sam_config(side: int = SIDE) -> T.SamConfig:
    """A SAM of two blocks, one of which sees windows; random positions need a scale, or nothing is anywhere."""
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": PATCH,
        "output_channels": 32,
        "num_pos_feats": 16,
        "window_size": 3,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
        "initializer_range": 0.3,
    }
    prompt = {"hidden_size": 32, "image_size": side, "patch_size": PATCH, "mask_input_channels": 8}
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    return T.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


def vision_config() -> T.CLIPVisionConfig:
    """5 x 5 patches of 14 pixels and a CLS: a finer grid than SAM's 4 x 4, and its 70 pixels are not SAM's 64."""
    return T.CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14
    )


def text_config(kind: str, vocabulary: int = 64) -> Any:
    if kind == "seq2seq":
        return T.T5Config(
            vocab_size=vocabulary,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            decoder_start_token_id=PAD,
            eos_token_id=END,
            dropout_rate=0.0,
        )
    return T.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=BEGIN,
        eos_token_id=END,
        tie_word_embeddings=True,
    )


def tiny_config(kind: str = "seq2seq", vocabulary: int = 64, **settings: Any) -> PixelLMConfig:
    targets = ("q", "v") if kind == "seq2seq" else ("q_proj", "v_proj")
    sizes = {"tokens": 4, "extractor_dim": 32, "extractor_out": 24, "lora_rank": 3, "point_dim": 16}
    return PixelLMConfig(
        **{
            "sam_config": sam_config(),
            "vision_config": vision_config(),
            "text_config": text_config(kind, vocabulary),
            "lora_targets": targets,
            **sizes,
            **settings,
        }
    )


def word_tokenizer(words: Sequence[str]) -> Any:
    """A tokenizer that knows these words, one token each."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    table = {token: i for i, token in enumerate(["<pad>", "</s>", "<s>", *words])}
    made = Tokenizer(models.WordLevel(table, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return T.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def stirred(model: PixelLM, seed: int = 0) -> PixelLM:
    """Random weights so large that outputs depend on inputs, those of low-rank updates and mask adapter among them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "lora_" in name or "alpha" in name:
                scale = 1.0 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """This file: `tiny.tiny_config(kind)` and the parts of it."""
    return sys.modules[__name__]


@pytest.fixture(scope="session", params=KINDS)
def model(request: pytest.FixtureRequest) -> PixelLM:
    """A tiny model of each kind of language model. Shared: a test leaves it as it was."""
    torch.manual_seed(0)
    return stirred(PixelLM(tiny_config(request.param)).eval())


@pytest.fixture
def batch() -> dict[str, Any]:
    """Two pictures, one of them not filling the square, and three rows about them; the last caption is cut off."""
    torch.manual_seed(1)
    return {
        "pixels": torch.rand(2, 3, SIDE, SIDE) * 255,
        "sizes": torch.tensor([[64.0, 64.0], [64.0, 40.0]]),
        "rows": torch.tensor([0, 1, 1]),
        "text": torch.tensor([[5, 6, 7], [8, 9, -1], [10, -1, -1]]),
        "labels": torch.tensor([[11, 12, 13, END], [14, END, -100, -100], [15, 16, 17, 18]]),
        "points": 4 + torch.rand(3, 4, 2, 2) * 30,
    }

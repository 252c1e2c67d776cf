"""Published architectures with random weights, at their own size or smaller; nothing is downloaded.

Smaller is one rule for all parts: every width over `narrow`, every depth over `shallow`, the vocabulary over both. The
image, its tokens and the width of an attention head stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers as T
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

from wherein.vlm.families import FAMILIES
from wherein.vlm.families.flamingo import FlamingoProcessor
from wherein.vlm.flamingo import OpenFlamingo
from wherein.vlm.flamingo.mpt import MosaicGpt, MosaicGptConfig
from wherein.vlm.flamingo.resampler import PerceiverResampler
from wherein.vlm.hf import HFVLM, QUESTION
from wherein.vlm.loading import check_memory, processor_class

PHRASES = ["cup", "spoon", "saucer", "table", "coffee", "plate", "napkin", "hand", "flower", "book"]
HEADROOM = 1.8  # of the weights: the activations of a training step
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
Built = tuple[Any, Any]  # (model, processor)


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


def vicuna(scale: Scale) -> dict[str, Any]:
    """Vicuna-7B."""
    return {
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


def llava(scale: Scale) -> Built:
    """LLaVA-1.5-7B: CLIP ViT-L/14 at 336 px, Vicuna-7B."""
    words = tokenizer("<image>", image_token="<image>")
    config = T.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **clip_large(scale, 336)},
        text_config=vicuna(scale),
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


def llava_next(scale: Scale) -> Built:
    """LLaVA-NeXT with Vicuna-7B: the image whole, and in up to four tiles of 336 px."""
    words = tokenizer("<image>", image_token="<image>")
    pinpoints = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    config = T.LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **clip_large(scale, 336)},
        text_config=vicuna(scale),
        image_token_id=words.image_token_id,
        image_grid_pinpoints=pinpoints,
    )
    crop = {"height": 336, "width": 336}
    images = T.LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size=crop, image_grid_pinpoints=pinpoints)
    processor = T.LlavaNextProcessor(
        images, words, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return T.LlavaNextForConditionalGeneration(config), processor


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
    "llava_next": llava_next,
    "blip2": blip2,
    "qwen2_5_vl": qwen2_5_vl,
    "flamingo": flamingo,
}


def parameters(family: str, scale: Scale) -> dict[str, Tensor]:
    """The shapes of a model's parameters, without making them."""
    with torch.device("meta"):
        return dict(BUILDERS[family](scale)[0].named_parameters())


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
    check_memory(family, HEADROOM * dtype.itemsize * sum(p.numel() for p in shapes.values()), device)
    torch.manual_seed(0)
    with defaults(dtype, device):
        model, processor = BUILDERS[family](scale)
    serves = next(one for one in FAMILIES if one.family == family)
    return serves(model, processor, f"{family}-random")

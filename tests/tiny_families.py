"""Every family of transformers models that we serve, so small that it is built in a moment: random weights, the real
modelling code, the real processor, a real tokenizer. `build(name)` gives the HFVLM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as T
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from wherein.vlm.families import FAMILIES
from wherein.vlm.families.flamingo import FlamingoProcessor
from wherein.vlm.flamingo import OpenFlamingo
from wherein.vlm.flamingo.mpt import MosaicGpt, MosaicGptConfig
from wherein.vlm.hf import HFVLM
from wherein.vlm.loading import processor_class

VOCABULARY = 512
PAD, BOS, EOS = 0, 1, 2
SIDE, PATCH = 56, 14
MADE: dict[str, Callable[[], tuple[Any, Any]]] = {}


def family(build: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
    MADE[build.__name__] = build
    return build


def tokenizer(*special: str, **roles: str) -> Any:
    """Byte-level BPE with digits apart; `special` tokens follow the 3 of every tokenizer."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    corpus = [" In the image is a red cat located at [05,30] nowhere."] * 4
    named = ["<pad>", "<s>", "</s>", *special]
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=named,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return T.PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", extra_special_tokens=roles or None
    )


def text(kind: str = "llama", **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        **more,
    }


def vision(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
        **more,
    }


def square(name: str, **more: Any) -> Any:
    return getattr(T, name)(size={"height": SIDE, "width": SIDE}, **more)


def cropping(name: str, **more: Any) -> Any:
    return getattr(T, name)(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, **more)


PINPOINTS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]


@family
def llava() -> tuple[Any, Any]:
    words = tokenizer("<image>", image_token="<image>")
    image = words.image_token_id
    config = T.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **vision()},
        text_config=text(),
        image_token_id=image,
        vision_feature_layer=-2,
    )
    processor = T.LlavaProcessor(
        cropping("CLIPImageProcessorPil"),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return T.LlavaForConditionalGeneration(config), processor


@family
def llava_next() -> tuple[Any, Any]:
    words = tokenizer("<image>", image_token="<image>")
    config = T.LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **vision()},
        text_config=text("mistral"),
        image_token_id=words.image_token_id,
        image_grid_pinpoints=PINPOINTS,
    )
    processor = T.LlavaNextProcessor(
        cropping("LlavaNextImageProcessorPil", image_grid_pinpoints=PINPOINTS),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return T.LlavaNextForConditionalGeneration(config), processor


@family
def llava_onevision() -> tuple[Any, Any]:
    """As published, patches do not fill a tile, and a picture may have more tiles than it has tokens for."""
    side = SIDE + 4
    pinpoints = [[side * rows, side * columns] for rows in range(1, 5) for columns in range(1, 5)]
    words = tokenizer("<image>", "<video>", image_token="<image>", video_token="<video>")
    config = T.LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **vision(image_size=side)},
        text_config=text("qwen2"),
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
        image_grid_pinpoints=pinpoints,
    )
    images = T.LlavaOnevisionImageProcessorPil(size={"height": side, "width": side}, image_grid_pinpoints=pinpoints)
    processor = processor_class("LlavaOnevisionProcessor")(
        images, words, num_image_tokens=(SIDE // PATCH) ** 2, vision_feature_select_strategy="full"
    )
    return T.LlavaOnevisionForConditionalGeneration(config), processor


def qwen(kind: str, looks: dict[str, Any], sections: list[int], patch: int) -> tuple[Any, Any]:
    marks = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    words = tokenizer(*marks.values(), "<|im_start|>", "<|im_end|>", **marks)
    ids = {f"{name}_id": words.convert_tokens_to_ids(token) for name, token in marks.items()}
    rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e4}
    plain = text()
    del plain["model_type"]
    config = getattr(T, f"{kind}Config")(
        text_config={**plain, "rope_parameters": rope}, vision_config={**looks, "patch_size": patch}, **ids
    )
    processor = processor_class(f"{kind}Processor")(
        T.Qwen2VLImageProcessorPil(
            size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}, patch_size=patch, merge_size=2
        ),
        words,
    )
    return getattr(T, f"{kind}ForConditionalGeneration")(config), processor


@family
def qwen2_vl() -> tuple[Any, Any]:
    looks = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "spatial_merge_size": 2}
    return qwen("Qwen2VL", looks, [1, 1, 2], 14)


DEEP = {
    "hidden_size": 48,
    "out_hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 3,
    "spatial_merge_size": 2,
}


@family
def qwen2_5_vl() -> tuple[Any, Any]:
    return qwen("Qwen2_5_VL", {**DEEP, "depth": 2, "window_size": 56, "fullatt_block_indexes": [1]}, [1, 1, 2], 14)


@family
def qwen3_vl() -> tuple[Any, Any]:
    looks = {**DEEP, "depth": 3, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    return qwen("Qwen3VL", looks, [2, 1, 1], 16)


QFORMER = {
    "hidden_size": 20,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "encoder_hidden_size": 24,
    "vocab_size": VOCABULARY,
    "cross_attention_frequency": 1,
}
OPT = T.OPTConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    ffn_dim=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    word_embed_proj_dim=32,
    max_position_embeddings=128,
    pad_token_id=PAD,
    bos_token_id=BOS,
    eos_token_id=EOS,
)
T5 = T.T5Config(
    vocab_size=VOCABULARY,
    d_model=32,
    d_kv=8,
    d_ff=64,
    num_layers=2,
    num_heads=4,
    decoder_start_token_id=PAD,
    pad_token_id=PAD,
    eos_token_id=EOS,
    tie_word_embeddings=False,
)


def blip(kind: str, language: Any) -> tuple[Any, Any]:
    words = tokenizer("<image>")
    config = getattr(T, f"{kind}Config")(
        vision_config=vision(),
        qformer_config=QFORMER,
        text_config=language,
        num_query_tokens=8,
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    own = [words] if kind == "InstructBlip" else []
    processor = getattr(T, f"{kind}Processor")(square("BlipImageProcessorPil"), words, *own, num_query_tokens=8)
    return getattr(T, f"{kind}ForConditionalGeneration")(config), processor


@family
def blip2() -> tuple[Any, Any]:
    return blip("Blip2", OPT)


@family
def blip2_t5() -> tuple[Any, Any]:
    return blip("Blip2", T5)


@family
def instructblip() -> tuple[Any, Any]:
    return blip("InstructBlip", T.LlamaConfig(**text()))


@family
def idefics() -> tuple[Any, Any]:
    marks = ("<fake_token_around_image>", "<image>")
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": list(marks)})
    plain = text()
    for key in ("model_type", "num_key_value_heads", "head_dim", "num_hidden_layers", "vocab_size"):
        del plain[key]
    config = T.IdeficsConfig(
        **plain,
        vocab_size=len(words) - 2,
        additional_vocab_size=2,
        num_hidden_layers=4,
        cross_layer_interval=2,
        vision_config={
            "embed_dim": 24,
            "image_size": SIDE,
            "patch_size": PATCH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
        },
        use_resampler=True,
        perceiver_config={
            "resampler_n_latents": 6,
            "resampler_depth": 2,
            "resampler_n_heads": 4,
            "resampler_head_dim": 8,
        },
        alpha_initializer="random",
        alpha_type="vector",
        alphas_initializer_range=1.0,
    )
    processor = T.IdeficsProcessor(T.IdeficsImageProcessorPil(image_size=SIDE), words, image_size=SIDE)
    return T.IdeficsForVisionText2Text(config), processor


def shuffled(kind: str) -> tuple[Any, Any]:
    marks = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tiles = [f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)]
    roles = {"image_token": marks[0], "fake_image_token": marks[1], "global_image_token": marks[2]}
    roles["end_of_utterance_token"] = marks[3]
    words = tokenizer(*marks, *tiles, **roles)
    config = getattr(T, f"{kind}Config")(
        text_config=T.LlamaConfig(**text()),
        vision_config=vision(),
        image_token_id=words.image_token_id,
        scale_factor=2,
    )
    images = getattr(T, f"{kind}ImageProcessorPil")(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    processor = T.Idefics3Processor(images, words, image_seq_len=4)
    return getattr(T, f"{kind}ForConditionalGeneration")(config), processor


@family
def idefics3() -> tuple[Any, Any]:
    return shuffled("Idefics3")


@family
def smolvlm() -> tuple[Any, Any]:
    return shuffled("SmolVLM")


SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False}


@family
def paligemma() -> tuple[Any, Any]:
    words = tokenizer("<image>", image_token="<image>")
    config = T.PaliGemmaConfig(
        vision_config=vision(**SIGLIP),
        text_config=text("gemma"),
        image_token_id=words.image_token_id,
        projection_dim=32,
    )
    images = square("SiglipImageProcessorPil")
    images.image_seq_length = (SIDE // PATCH) ** 2
    return T.PaliGemmaForConditionalGeneration(config), T.PaliGemmaProcessor(images, words)


@family
def paligemma2() -> tuple[Any, Any]:
    words = tokenizer("<image>", image_token="<image>")
    config = T.PaliGemmaConfig(
        vision_config=vision(**SIGLIP),
        text_config=text("gemma2", sliding_window=512, query_pre_attn_scalar=8),
        image_token_id=words.image_token_id,
        projection_dim=32,
    )
    images = square("SiglipImageProcessorPil")
    images.image_seq_length = (SIDE // PATCH) ** 2
    return T.PaliGemmaForConditionalGeneration(config), T.PaliGemmaProcessor(images, words)


@family
def gemma3() -> tuple[Any, Any]:
    marks = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    words = tokenizer(*marks.values(), "<bos>", "<start_of_turn>", "<end_of_turn>", **marks)
    config = T.Gemma3Config(
        vision_config=vision(**SIGLIP),
        text_config=text("gemma3_text", sliding_window=512, query_pre_attn_scalar=8),
        image_token_id=words.image_token_id,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
        mm_tokens_per_image=4,
    )
    processor = T.Gemma3Processor(square("Gemma3ImageProcessorPil"), words, image_seq_length=4)
    return T.Gemma3ForConditionalGeneration(config), processor


@family
def internvl() -> tuple[Any, Any]:
    marks = {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    }
    words = tokenizer(*marks.values(), "<|im_start|>", "<|im_end|>", **marks)
    config = T.InternVLConfig(
        vision_config=vision(image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH]),
        text_config=text("qwen2"),
        image_token_id=words.context_image_token_id,
    )
    processor = processor_class("InternVLProcessor")(square("GotOcr2ImageProcessorPil"), words, image_seq_length=4)
    return T.InternVLForConditionalGeneration(config), processor


@family
def kosmos2() -> tuple[Any, Any]:
    words = tokenizer("<image>", "</image>", "<grounding>", "<phrase>", "</phrase>", "<object>", "</object>", "<unk>")
    words.unk_token = "<unk>"
    config = T.Kosmos2Config(
        text_config={
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 128,
            "embed_dim": 32,
            "layers": 2,
            "ffn_dim": 64,
            "attention_heads": 4,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
        },
        vision_config=vision(),
        latent_query_num=64,
    )
    processor = T.Kosmos2Processor(cropping("CLIPImageProcessorPil"), words)
    return T.Kosmos2ForConditionalGeneration(config), processor


def flamingo(language: Any) -> tuple[Any, Any]:
    words = tokenizer("<|endofchunk|>", "<image>")
    words.add_special_tokens({"additional_special_tokens": ["<|endofchunk|>", "<image>"]})
    encoder = T.CLIPVisionModel(T.CLIPVisionConfig(**vision()))
    model = OpenFlamingo(encoder, language, 1, words.convert_tokens_to_ids("<image>"))
    return model, FlamingoProcessor(cropping("CLIPImageProcessorPil"), words)


@family
def flamingo_mpt1b() -> tuple[Any, Any]:
    return flamingo(MosaicGpt(MosaicGptConfig(VOCABULARY, 32, 4, 2, 4)))


@family
def flamingo_mpt7b() -> tuple[Any, Any]:
    return flamingo(
        T.MptForCausalLM(T.MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=VOCABULARY, max_seq_len=256))
    )


@family
def flamingo_rpj3b() -> tuple[Any, Any]:
    config = T.GPTNeoXConfig(
        hidden_size=32,
        num_attention_heads=4,
        num_hidden_layers=2,
        intermediate_size=64,
        vocab_size=VOCABULARY,
        use_parallel_residual=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
    )
    return flamingo(T.GPTNeoXForCausalLM(config))


def build(name: str, seed: int = 0) -> HFVLM:
    """The tiny model of a family, weights large enough that answers depend on the image and on what is asked."""
    torch.manual_seed(seed)
    model, processor = MADE[name]()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
        else:
            parameter.data += 0.1 * torch.randn_like(parameter)
    kind = "open_flamingo" if isinstance(model, OpenFlamingo) else model.config.model_type
    serves = next(one for one in FAMILIES if kind in one.model_types)
    return serves(model, processor, name)

"""What a pixel-aligned language model is made of."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig, SamConfig

from wherein.errors import InputError
from wherein.methods.pixel.two_way import HEADS
from wherein.methods.settings import finite, whole

FITS = ("pad", "squash")
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
LEAST = {
    "tokens": 1,
    "extractor_depth": 1,
    "extractor_dim": 1,
    "extractor_out": 1,
    "lora_rank": 0,
    "point_dim": 1,
    "adapter_depth": 1,
    "proposal_dim": 0,
}
"""The least that each size may be."""


class LiteConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The default VLM's vision encoder, EfficientNet-Lite2, as a part: its sizes are fixed but for the picture's side.

    image_size: the side of its input, pixels, a multiple of 32.
    """

    model_type = "wherein_efficientnet_lite2"

    def __init__(self, image_size: int = 320, **more: Any) -> None:
        self.image_size, self.patch_size, self.hidden_size = image_size, 32, 1280
        super().__init__(**more)


AutoConfig.register(LiteConfig.model_type, LiteConfig)


class PixelLMConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The parts of a `PixelLM` by name, and the sizes of what lies between them.

    sam_config: a SAM. Its prompt encoder is always used, and gives the side of the square the model sees; with
    `sam_encodes` its image encoder is one of the vision encoders and its mask decoder draws masks · vision_config: a
    further vision encoder, of transformers or a `LiteConfig`; None: SAM's alone · vision_mean, vision_std: how that
    encoder wants its pixels, 0..1 · vision_trains: it is trained, too · text_config: a language model, encoder-decoder
    or decoder alone · fit: how a picture comes into the square, `pad`ded below and on the right, as published, or
    `squash`ed · tokens, extractor_depth, extractor_dim, extractor_out: of the prompt feature extractor (depth 2 in the
    paper, 6 as released; the width is shared out among heads) · lora_rank, lora_scale, lora_targets: of the low-rank
    updates; the scale multiplies their product as it is, and the targets are names of the language model's linear
    layers · points_per_token: 2, the corners of a word's box, or 1 · point_dim: width inside the point head ·
    adapter_depth: of the mask adapter · proposal_dim: width of the head that proposes boxes for dense captioning, 0 for
    none · carries: visual tokens carry words of the cells that they look at, those of the one encoder, see `Carrier` ·
    begin_token_id, end_token_id: of a caption; None: the language model's own.

    The default is the published build with SAM's encoder alone; `published` has both.
    Raises InputError for parts that do not go together.
    """

    model_type = "wherein_pixel"
    keys_to_ignore_at_inference = ["text_loss", "point_loss", "mask_loss", "masks", "drawn", "skipped"]
    sub_configs = {"sam_config": AutoConfig, "vision_config": AutoConfig, "text_config": AutoConfig}

    def __init__(
        self,
        sam_config: Any = None,
        vision_config: Any = None,
        text_config: Any = None,
        sam_encodes: bool = True,
        vision_mean: Any = CLIP_MEAN,
        vision_std: Any = CLIP_STD,
        vision_trains: bool = True,
        fit: str = "pad",
        tokens: int = 32,
        extractor_depth: int = 2,
        extractor_dim: int = 512,
        extractor_out: int = 1024,
        lora_rank: int = 32,
        lora_scale: float = 2.0,
        lora_targets: Any = ("q", "v"),
        points_per_token: int = 2,
        point_dim: int = 512,
        adapter_depth: int = 2,
        proposal_dim: int = 0,
        carries: bool = False,
        begin_token_id: int | None = None,
        end_token_id: int | None = None,
        **more: Any,
    ) -> None:
        self.sam_config: Any = _part(sam_config) or sam_huge()
        self.vision_config: Any = _part(vision_config)
        self.text_config: Any = _part(text_config) or flan_t5_xl()
        self.sam_encodes, self.vision_trains, self.fit = sam_encodes, vision_trains, fit
        self.vision_mean, self.vision_std = list(vision_mean), list(vision_std)
        self.tokens, self.extractor_depth, self.extractor_dim = tokens, extractor_depth, extractor_dim
        self.extractor_out, self.point_dim, self.adapter_depth = extractor_out, point_dim, adapter_depth
        self.lora_rank, self.lora_scale, self.lora_targets = lora_rank, lora_scale, _names(lora_targets)
        self.points_per_token, self.proposal_dim, self.carries = points_per_token, proposal_dim, carries
        text = self.text_config
        self.begin_token_id = _first(begin_token_id, _of(text, "decoder_start_token_id"), _of(text, "bos_token_id"))
        self.end_token_id = _first(end_token_id, _of(text, "eos_token_id"))
        super().__init__(**{"tie_word_embeddings": bool(_of(text, "tie_word_embeddings")), **more})
        self._check()

    @classmethod
    def published(cls, **changed: Any) -> PixelLMConfig:
        """The published sizes: SAM ViT-H and a ViT-L/14 on a picture of 384 pixels, Flan-T5-XL.

        The paper's ViT-L is EVA02's, which transformers does not have. CLIP's has its width, depth, heads, patches and
        pixels, and stands in its place here.
        """
        return cls(vision_config=vit_large(), **changed)

    @property
    def side(self) -> int:
        """Of the square that the model sees, pixels."""
        return int(self.sam_config.prompt_encoder_config.image_size)

    @property
    def text_dim(self) -> int:
        """D_t, the language model's width."""
        return int(self.text_config.hidden_size)

    @property
    def prompt_dim(self) -> int:
        """The width of SAM's prompt embeddings and of its image embedding."""
        return int(self.sam_config.prompt_encoder_config.hidden_size)

    def _check(self) -> None:
        if self.fit not in FITS:
            raise InputError(f"A picture can be fitted by {' or '.join(FITS)}, not by {self.fit!r}.")
        if not self.sam_encodes and self.vision_config is None:
            raise InputError("A pixel-aligned model needs a vision encoder: set sam_encodes, or give a vision_config.")
        if self.points_per_token not in (1, 2):
            raise InputError(f"A word has 1 or 2 points, not {self.points_per_token}: set points_per_token to one.")
        if self.carries and self.sam_encodes and self.vision_config is not None:
            raise InputError("Words are carried from one vision encoder's cells: unset sam_encodes or vision_config.")
        self._check_sizes()
        sam = self.sam_config
        if self.sam_encodes and sam.vision_config.image_size != self.side:
            raise InputError(
                f"SAM's image encoder takes {sam.vision_config.image_size} pixels a side and its prompt encoder "
                f"{self.side}: give both the same."
            )
        if 2 * sam.vision_config.num_pos_feats != self.prompt_dim:
            raise InputError(
                f"SAM's positions have {2 * sam.vision_config.num_pos_feats} values and its prompts {self.prompt_dim}: "
                "set num_pos_feats to half of the prompts' hidden_size."
            )
        if self.begin_token_id is None or self.end_token_id is None:
            raise InputError(
                "The language model's configuration names no token that begins or ends a text: give begin_token_id "
                "and end_token_id."
            )

    def _check_sizes(self) -> None:
        for name, least in LEAST.items():
            size = getattr(self, name)
            if not whole(size, least):
                raise InputError(f"A pixel-aligned model's {name} is a whole number from {least} up, not {size!r}.")
        if not finite(self.lora_scale):
            raise InputError(f"A pixel-aligned model's lora_scale is a finite number, not {self.lora_scale!r}.")
        widths = {"extractor_dim": self.extractor_dim}
        if self.sam_encodes:
            widths["prompt hidden_size of SAM"] = self.prompt_dim
        for name, width in widths.items():
            if width % (2 * HEADS):
                raise InputError(
                    f"The {name} is {width}, and half of it is shared out among {HEADS} heads: choose a multiple of "
                    f"{2 * HEADS}."
                )


AutoConfig.register(PixelLMConfig.model_type, PixelLMConfig)


def sam_huge(side: int = 384) -> SamConfig:
    """SAM ViT-H/16 (Kirillov et al., 2023) on pictures of this side, pixels."""
    vision = {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
        "image_size": side,
    }
    return SamConfig(vision_config=vision, prompt_encoder_config={"image_size": side})


def vit_large() -> Any:
    """CLIP's ViT-L/14 on 27 x 27 patches."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        image_size=378,
    )


def flan_t5_xl() -> Any:
    """Flan-T5-XL's sizes."""
    from transformers import T5Config

    config: Any = T5Config  # its further settings are those of every configuration
    return config(
        d_model=2048,
        d_ff=5120,
        num_layers=24,
        num_decoder_layers=24,
        num_heads=32,
        d_kv=64,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )


def _part(config: Any) -> Any:
    """A part's configuration, which a file gives as a dict that says its `model_type`."""
    if not isinstance(config, dict):
        return config
    settings = dict(config)
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def _names(layers: Any) -> list[str]:
    if not isinstance(layers, list | tuple) or not all(isinstance(name, str) for name in layers):
        raise InputError(f"A pixel-aligned model's lora_targets are a list of names of layers, not {layers!r}.")
    return list(layers)


def _of(config: Any, name: str) -> Any:
    return getattr(config, name, None)


def _first(*values: Any) -> Any:
    """The first that is something; a list of token ids counts as its first."""
    found = next((value for value in values if value is not None), None)
    return found[0] if isinstance(found, list | tuple) else found

"""SAM and SAM 2 with a few thousand random weights, each saved to a folder as a checkpoint is laid out."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as T
from numpy.typing import NDArray

from wherein.segment import Segmenter

SIDE = 64  # pixels of the model's square
PROMPT_ENCODER = {"hidden_size": 16, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 16}
MASK_DECODER = {
    "hidden_size": 16,
    "mlp_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 8,
}
HIERA = {
    "model_type": "sam2_hiera_det_model",
    "hidden_size": 8,
    "image_size": [SIDE, SIDE],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64],
    "num_attention_heads_per_stage": [1, 1, 2, 2],
    "window_size_per_stage": [4, 2, 2, 2],
    "global_attention_blocks": [3],
}
SAM2 = {
    "vision_config": {
        "backbone_config": HIERA,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 16,
    },
    "prompt_encoder_config": PROMPT_ENCODER,
    "mask_decoder_config": MASK_DECODER,
}
MEMORY = {
    "memory_attention_hidden_size": 16,
    "memory_attention_feed_forward_hidden_size": 16,
    "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": 16,
    "memory_encoder_output_channels": 8,
    "memory_fuser_embed_dim": 16,
    "memory_fuser_intermediate_dim": 16,
    "memory_fuser_num_layers": 1,
    "mask_downsampler_embed_dim": 16,
}


def sam(folder: Path) -> None:
    """As facebook/sam-vit-base: the settings in preprocessor_config.json."""
    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
        "mlp_dim": 16,
    }
    config = T.SamConfig(vision_config=vision, prompt_encoder_config=PROMPT_ENCODER, mask_decoder_config=MASK_DECODER)
    noisy(T.SamModel(config)).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    T.SamImageProcessorPil(size={"longest_edge": SIDE}, pad_size=square).save_pretrained(folder)


def sam2(folder: Path) -> None:
    """As `save_pretrained` leaves a Sam2Model and its processor, the settings inside processor_config.json."""
    noisy(T.Sam2Model(T.Sam2Config(**SAM2))).save_pretrained(folder)
    settings = {"image_processor": sam2_images(), "processor_class": "Sam2Processor", "target_size": SIDE}
    (folder / "processor_config.json").write_text(json.dumps(settings))


def sam2_video(folder: Path) -> None:
    """As facebook/sam2.1-hiera-tiny, which holds the model for videos."""
    noisy(T.Sam2VideoModel(T.Sam2VideoConfig(**SAM2, **MEMORY))).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(sam2_images()))
    settings = {"processor_class": "Sam2VideoProcessor", "target_size": SIDE}
    (folder / "processor_config.json").write_text(json.dumps(settings))


def sam2_images() -> dict[str, Any]:
    """Settings of an image processor that transformers has on torchvision only, hence not saved by it here."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.4, 0.5, 0.6],  # not the default: the file counts
        "image_processor_type": "Sam2ImageProcessorFast",
        "image_std": [0.2, 0.25, 0.3],
        "mask_size": {"height": 16, "width": 16},
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": SIDE, "width": SIDE},
    }


def noisy(model: Any) -> Any:
    """The same model, its weights drawn so wide that pictures and prompts show in its masks; a name, the same draw."""
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            alone = weight.ndim < 2 or len(weight) < 5  # biases, norms, embeddings
            weight.normal_(std=0.7 if alone else 1.4 / weight[0].numel() ** 0.5, generator=draw)
    return model


MADE = {"sam": sam, "sam2": sam2, "sam2_video": sam2_video}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folders(layout)`: the folder of a tiny segmenter."""
    made: dict[str, Path] = {}

    def folder(layout: str) -> Path:
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp(layout)
            MADE[layout](made[layout])
        return made[layout]

    return folder


@pytest.fixture(scope="session")
def segmenters(folders: Callable[[str], Path]) -> Callable[[str], Segmenter]:
    """`segmenters(layout)`: the same, loaded by its name. Shared and frozen."""
    loaded: dict[str, Segmenter] = {}

    def load(layout: str) -> Segmenter:
        if layout not in loaded:
            loaded[layout] = Segmenter(str(folders(layout)), "cpu")
        return loaded[layout]

    return load


@pytest.fixture(params=MADE)
def segmenter(request: pytest.FixtureRequest, segmenters: Callable[[str], Segmenter]) -> Segmenter:
    """Each layout in turn."""
    return segmenters(request.param)


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """uint8[40, 100, 3]: not square, and smooth enough that a tenth of a pixel changes little."""
    y, x = np.mgrid[:40, :100]
    channels = [128 + 100 * np.sin(x / 9), 128 + 100 * np.cos(y / 5), 2 * x + y]
    return np.stack(channels, axis=-1).astype(np.uint8)

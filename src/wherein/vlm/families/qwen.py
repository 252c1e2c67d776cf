"""Qwen-VL: dynamic resolution, a merger of 2 x 2 patches, rotary positions in three dimensions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wherein.vlm import views
from wherein.vlm.hf import HFVLM, QUESTION

BOX_2D = "Locate {phrase}, output its bbox coordinates in JSON format."


class Qwen2VL(HFVLM):
    """Qwen2-VL. x_v are patches in the order of the blocks that become a token each."""

    family = "qwen2_vl"
    model_types = ("qwen2_vl",)
    model_class = "Qwen2VLForConditionalGeneration"
    processor_class = "Qwen2VLProcessor"
    views = staticmethod(views.dynamic)
    connector_path = "model.visual.merger"
    blocks_path = "model.visual.blocks"
    patches_path = "model.visual.patch_embed"
    width_key = "embed_dim"
    lead = f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    native = "<|box_start|>(x0,y0),(x1,y1)<|box_end|> in 0..1000"
    native_prompt = "Give the bounding box of <|object_ref_start|>{phrase}<|object_ref_end|>."
    checkpoint = "Qwen/Qwen2-VL-7B-Instruct"
    licence = "Apache-2.0"

    def token(self) -> int:
        """A token stands for a block of patches."""
        return self.patch() * int(self.model.config.vision_config.spatial_merge_size)

    def raster(self, rows: int, columns: int) -> NDArray[np.int64]:
        """Block by block, row by row within each."""
        side = int(self.model.config.vision_config.spatial_merge_size)
        index = np.arange(rows * columns).reshape(rows // side, side, columns // side, side)
        return index.transpose(0, 2, 1, 3).reshape(-1)


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: the encoder works in windows, and x_v are in their order."""

    family = "qwen2_5_vl"
    model_types = ("qwen2_5_vl",)
    model_class = "Qwen2_5_VLForConditionalGeneration"
    processor_class = "Qwen2_5_VLProcessor"
    native = 'JSON "bbox_2d" in pixels of the resized image'
    native_prompt = BOX_2D
    width_key = "hidden_size"
    checkpoint = "Qwen/Qwen2.5-VL-7B-Instruct"

    def raster(self, rows: int, columns: int) -> NDArray[np.int64]:
        """Window by window, block by block within each."""
        merge = int(self.model.config.vision_config.spatial_merge_size)
        blocks = super().raster(rows, columns).reshape(-1, merge * merge)
        return blocks[self.token_raster(rows // merge, columns // merge)].reshape(-1)

    def token_raster(self, rows: int, columns: int) -> NDArray[np.int64]:
        """Window by window."""
        from transformers.vision_utils import get_vision_window_index

        config = self.model.config.vision_config
        merge = int(config.spatial_merge_size)
        whole = torch.tensor([[1, rows * merge, columns * merge]])
        return np.asarray(get_vision_window_index(whole, merge, config.window_size, config.patch_size)[0])


class Qwen3VL(Qwen2VL):
    """Qwen3-VL: features of earlier blocks go into the language model's first layers too, and stand before x_v."""

    family = "qwen3_vl"
    model_types = ("qwen3_vl",)
    model_class = "Qwen3VLForConditionalGeneration"
    processor_class = "Qwen3VLProcessor"
    others_path = "model.visual.deepstack_merger_list"
    native = 'JSON "bbox_2d" in 0..1000'
    native_prompt = BOX_2D
    width_key = "hidden_size"
    checkpoint = "Qwen/Qwen3-VL-8B-Instruct"

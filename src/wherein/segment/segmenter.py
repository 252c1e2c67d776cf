"""A frozen promptable segmenter: boxes in, masks out, with points or a coarse mask from a heat map if asked for.

The large image encoder runs once an image; the small mask decoder answers all boxes of all phrases from its output. One
mask a box (`multimask_output=False`), as F-LMM does it; the paper of the localisation heads leaves it open.

Notable choices:
- prompts are laid out one box an image of the decoder's batch, not as many boxes on one image: there, a mask prompt
  would be shared by all boxes
- coordinates go through `Frame`, not through `SamProcessor`, which takes no box without processing the image once more;
  the tests hold both against each other
- image processors are PIL's on every machine: torchvision is never needed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from wherein import geometry
from wherein.checkpoints import configuration, device_for, reading
from wherein.errors import ImageError, InputError
from wherein.geometry import Boxes, Frame

PROMPTS = ("box", "box+points", "box+mask")
"""What the segmenter is asked with: the box alone, or with the peak of the heat map, or with the map as a mask."""

AT_ONCE = 16  # boxes in one run of the decoder: constant memory however many there are
SURE = 10.0  # logit of a mask prompt that is certain: what SAM 2's own code makes of a binary mask


class Kind(NamedTuple):
    """A kind of segmenter: its name here, and its class in transformers."""

    name: str
    model_class: str


_SAM2 = Kind("sam2", "Sam2Model")
KINDS = {"sam": Kind("sam", "SamModel"), "sam2": _SAM2, "sam2_video": _SAM2}
"""By `model_type`. The published SAM 2 checkpoints say sam2_video; on one image, that is a SAM 2 with parts unused."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """An image as the mask decoder takes it.

    Attributes:
        frame: from the image to the picture in the upper left of the model's square, without the padding.
        embeddings: float32[1, C, h, w], fine to coarse: one of SAM, three of SAM 2.
    """

    frame: Frame
    embeddings: list[Tensor]


class Segmenter:
    """A promptable segmenter (SAM, SAM 2), frozen, in float32."""

    def __init__(self, name: str, device: str = "auto") -> None:
        """Load a segmenter.

        Args:
            name: a Hub id or a folder.
            device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1" ...

        Raises:
            InputError: there is no such model or device, or the model is neither a SAM nor a SAM 2.
        """
        self.name, self.device = name, device_for(device)
        config = configuration(name)
        self._kind = kind_of(config.model_type, name)
        self._images = reading(name, "image processor", lambda: _image_processor(self._kind).from_pretrained(name))
        self.model = reading(name, "weights", lambda: _weights(self._kind, name, config))
        self.model.eval().requires_grad_(False).to(self.device)

    @property
    def kind(self) -> str:
        """The kind of segmenter: "sam" or "sam2"."""
        return self._kind.name

    def masks(
        self,
        image: NDArray[np.uint8],
        boxes: NDArray[np.float64],
        heat: NDArray[np.float32] | None = None,
        prompt: str = "box",
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """One mask for each box on an image: `encode`, then `decode`; without a box, neither of the model's parts runs.

        Args:
            image: uint8[H, W, 3].
            boxes: float64[K, 4], xyxy in pixels of the image; cut to it, and at least one pixel wide and high.
            heat: float32[h, w], laid over the whole image; box+points and box+mask need it.
            prompt: one of `PROMPTS`. "box+points" adds the hottest place in each box, "box+mask" the map inside it.

        Returns:
            bool[K, H, W], the masks, and float64[K], the IoU that the segmenter expects of each.

        Raises:
            InputError: there is no such prompt, it needs a heat map and none was given, or the map or a box is
                unusable.
            ImageError: the image is too long and thin.
        """
        check_prompt(prompt)
        _check_heat(prompt, heat)
        if len(boxes) == 0:
            return np.zeros((0, *image.shape[:2]), np.bool_), np.zeros(0)
        return self.decode(self.encode(image), boxes, heat, prompt)

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> Encoded:
        """Run the image encoder on uint8[H, W, 3]. Raises ImageError: the image is too long and thin."""
        height, width = image.shape[:2]
        try:
            inputs = self._images(Image.fromarray(image), return_tensors="pt")
        except ValueError as error:
            raise ImageError(
                f"An image of {width} x {height} pixels is too long and thin for {self.name} ({error}): crop or pad it."
            ) from error
        pixels = inputs["pixel_values"]
        rows, columns = inputs.get("reshaped_input_sizes", [pixels.shape[-2:]])[0]
        embeddings = self.model.get_image_embeddings(pixels.to(self.device))
        frame = Frame.identity(width, height).resize(int(columns), int(rows))
        return Encoded(frame, embeddings if isinstance(embeddings, list) else [embeddings])

    @torch.inference_mode()
    def decode(
        self, encoded: Encoded, boxes: ArrayLike, heat: NDArray[np.float32] | None = None, prompt: str = "box"
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """The masks of boxes on an encoded image, as often as wanted; arguments, returns and errors as of `masks`."""
        check_prompt(prompt)
        _check_heat(prompt, heat)
        frame, tidy = encoded.frame, _tidy(boxes, encoded.frame)
        masks, ious = np.zeros((len(tidy), frame.height, frame.width), np.bool_), np.zeros(len(tidy))
        for start in range(0, len(tidy), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            prompts = self._prompts(frame, tidy[some], heat, prompt)
            low, expected = self._run(encoded.embeddings, prompts)
            masks[some], ious[some] = self._full_size(low, frame), expected.cpu().double().numpy()
        return masks, ious

    def _prompts(self, frame: Frame, boxes: Boxes, heat: NDArray[np.float32] | None, prompt: str) -> dict[str, Tensor]:
        """The model's arguments for boxes float64[k, 4] on the image."""
        prompts = {"input_boxes": torch.from_numpy(frame.to_model(boxes)).float()[:, None]}
        if heat is not None and prompt == "box+points":
            points = frame.to_model(np.tile(peaks(heat, boxes, frame), 2))[:, :2]
            prompts["input_points"] = torch.from_numpy(points).float()[:, None, None]
            prompts["input_labels"] = torch.ones(len(boxes), 1, 1, dtype=torch.int64)
        if heat is not None and prompt == "box+mask":
            shape = self.model.config.prompt_encoder_config
            side, small = shape.image_size, 4 * (shape.image_size // shape.patch_size)
            prompts["input_masks"] = mask_prompts(heat, boxes, frame, side, small)
        return {name: value.to(self.device) for name, value in prompts.items()}

    def _run(self, embeddings: list[Tensor], prompts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mask logits float32[k, 1, h, w] over the model's square and expected IoUs float32[k]."""
        many = [level.expand(len(prompts["input_boxes"]), -1, -1, -1) for level in embeddings]
        image = many if self.kind == "sam2" else many[0]
        outputs = self.model(image_embeddings=image, multimask_output=False, **prompts)
        return outputs.pred_masks[:, 0], outputs.iou_scores[:, 0, 0]

    def _full_size(self, low: Tensor, frame: Frame) -> NDArray[np.bool_]:
        """bool[k, H, W] from mask logits float32[k, 1, h, w]; one at a time, for large images."""
        count, shown = len(low), (frame.model_height, frame.model_width)
        sizes = [(frame.height, frame.width)] * count
        full = self._images.post_process_masks([mask[None] for mask in low], sizes, [shown] * count)
        return np.concatenate([mask[0].cpu().numpy() for mask in full])


def kind_of(model_type: str, name: str) -> Kind:
    """The kind of segmenter that a configuration's `model_type` is. Raises InputError where it is none."""
    if model_type not in KINDS:
        raise InputError(
            f"{name} is a {model_type} model, no segmenter that is served: choose a SAM, such as "
            "facebook/sam-vit-base, or a SAM 2, such as facebook/sam2.1-hiera-tiny."
        )
    return KINDS[model_type]


def check_prompt(prompt: str) -> None:
    """Raise InputError for a prompt that is none of `PROMPTS`."""
    if prompt not in PROMPTS:
        raise InputError(f"There is no segmenter prompt {prompt!r}: choose {', '.join(PROMPTS)}.")


def peaks(heat: NDArray[np.float32], boxes: Boxes, frame: Frame) -> NDArray[np.float64]:
    """The hottest place in each box float64[K, 4], as x, y float64[K, 2], in pixels of the image that `frame` is of.

    It is the middle of the hottest cell of `heat` float32[h, w], or of what of that cell lies in the box.
    """
    rows, columns = heat.shape
    grid = Frame.identity(frame.width, frame.height).resize(columns, rows)
    inside = grid.to_model(boxes)
    points = np.array([_peak(heat, box) for box in inside])
    return grid.to_image(np.tile(points, 2))[:, :2]


def _peak(heat: NDArray[np.float32], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """x, y of the hottest place in a box; both in cells."""
    x0, y0, x1, y1 = _covered(box, heat.shape[1], heat.shape[0])
    window = heat[y0:y1, x0:x1]
    row, column = np.unravel_index(window.argmax(), window.shape)
    corner = np.array([x0 + column, y0 + row])
    return np.asarray((np.maximum(corner, box[:2]) + np.minimum(corner + 1, box[2:])) / 2)


def mask_prompts(heat: NDArray[np.float32], boxes: Boxes, frame: Frame, side: int, small: int) -> Tensor:
    """Mask prompts float32[K, 1, small, small] over the model's square of `side` pixels, from a heat map float32[h, w].

    The map's logits are drawn at the size of the picture in the square, padded and made small, F-LMM's way. Outside its
    box, a prompt says no: F-LMM has one map a box, and here what is hot outside belongs to the phrase's other boxes.
    """
    shown = (frame.model_height, frame.model_width)
    drawn = functional.interpolate(torch.from_numpy(logits(heat))[None, None], shown, mode="bilinear")[0]
    squares = torch.full((len(boxes), 1, side, side), -SURE)
    for square, box in zip(squares, frame.to_model(boxes), strict=True):
        x0, y0, x1, y1 = _covered(box, frame.model_width, frame.model_height)
        square[:, y0:y1, x0:x1] = drawn[:, y0:y1, x0:x1]
    return functional.interpolate(squares, (small, small), mode="bilinear")


def logits(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """A heat map of any scale as mask logits float32[h, w]: -`SURE` at its lowest, 0 at its mean, `SURE` at its peak.

    The mean is where the localisation heads cut their pseudo-mask. An even map is 0 everywhere.
    """
    if np.ptp(heat) == 0:
        return np.zeros(heat.shape, np.float32)
    above = heat.astype(np.float64) - heat.mean(dtype=np.float64)
    return np.asarray(SURE * above / np.where(above > 0, above.max(), -above.min()), np.float32)


def _covered(box: NDArray[np.float64], columns: int, rows: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the cells of a grid that a box in cells touches; at least one."""
    x0, y0 = (
        max(0, min(int(np.floor(value)), count - 1)) for value, count in zip(box[:2], (columns, rows), strict=True)
    )
    x1, y1 = (min(int(np.ceil(value)), count) for value, count in zip(box[2:], (columns, rows), strict=True))
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _tidy(boxes: ArrayLike, frame: Frame) -> Boxes:
    """Boxes cut to the image, and those without width or height made one pixel wide or high."""
    array = geometry.as_boxes(boxes)
    if not np.isfinite(array).all():
        raise InputError(f"Boxes must be finite, got {array.tolist()}.")
    cut, size = geometry.clip(array, frame.width, frame.height), np.array([frame.width, frame.height])
    flat = cut[:, 2:] <= cut[:, :2]
    low = np.where(flat, np.minimum(cut[:, :2], size - 1), cut[:, :2])
    return np.concatenate([low, np.where(flat, low + 1, cut[:, 2:])], axis=1)


def _check_heat(prompt: str, heat: NDArray[np.float32] | None) -> None:
    if prompt == "box":
        return
    if heat is None:
        raise InputError(
            f"The segmenter prompt {prompt!r} needs a heat map, and there is none: choose the prompt box, or a method "
            "that gives heat maps, such as heads or cam."
        )
    if heat.ndim != 2 or heat.size == 0 or not np.isfinite(heat).all():
        raise InputError(f"A heat map must be finite numbers of shape [h, w], got {heat.dtype}{list(heat.shape)}.")


def _weights(kind: Kind, name: str, config: Any) -> Any:
    import transformers

    # With the configuration as it was read: transformers, left to read it, warns that a sam2_video is no sam2.
    return getattr(transformers, kind.model_class).from_pretrained(
        name, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )


def _image_processor(kind: Kind) -> Any:
    """The kind's image processor class, on PIL."""
    if kind is not _SAM2:
        from transformers import SamImageProcessorPil

        return SamImageProcessorPil
    from transformers.image_processing_backends import PilBackend

    # transformers has SAM 2's image processor on torchvision only. It is a plain one: squash to a square, rescale,
    # normalise. These are its defaults; what the checkpoint's file says comes over them.
    class Sam2ImageProcessorPil(PilBackend):
        """Images of any size -> pixel_values float32[B, 3, 1024, 1024]."""

        resample = Image.Resampling.BILINEAR
        image_mean, image_std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        size = {"height": 1024, "width": 1024}
        do_resize = do_rescale = do_normalize = do_convert_rgb = True

        def post_process_masks(self, masks: list[Tensor], sizes: list[tuple[int, int]], _: Any) -> list[Tensor]:
            """As SAM's: masks float[k, n, h, w] of images of these (height, width); there is no padding to cut off."""
            return [
                functional.interpolate(mask, size, mode="bilinear", align_corners=False) > 0
                for mask, size in zip(masks, sizes, strict=True)
            ]

    return Sam2ImageProcessorPil

"""cam: the encoder's own class activation map (Zhou et al., 2016), the honest peer of everything unlocked.

No training and no language: a phrase is matched to the nearest class names by word embeddings, their classifier rows
give a map over the cells, and the largest component above a threshold gives the box. The image is seen in two sizes, as
ImageNet's classes come large and small in a photograph. It needs an encoder with a classifier, so it works on the
default VLM only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from wherein.errors import InputError
from wherein.grounding import Grounding
from wherein.methods.base import Method, register
from wherein.phrases import head
from wherein.vlm.base import FrozenVLM
from wherein.vlm.default import DefaultVLM
from wherein.vlm.efficientnet import normalise

NEAREST = 5  # class names added up for a phrase that is no class or kind itself
THRESHOLD = 0.3  # of the map's range
SIDES = (320, 448)  # of the squares the image is seen as, pixels
FINE = 112  # cells of a map, along each side


@register
class Cam(Method):
    """One box a phrase; the score is the probability of the phrase's classes for the whole image, by the classifier."""

    name = "cam"
    score_kind = "class_activation"
    built_in_only = True
    gives = frozenset({"heatmap"})

    def __init__(self, vlm: FrozenVLM) -> None:
        if not isinstance(vlm, DefaultVLM):
            raise InputError(f"The method cam reads the default model's classifier; {vlm.name} has none.")
        super().__init__(vlm)
        self.vlm: DefaultVLM = vlm
        words = vlm.class_words
        self._words = torch.nn.functional.normalize(words - words.mean(0), dim=1)

    def classes(self, phrase: str) -> list[int]:
        """The ImageNet classes a phrase stands for: its own name or kind where there is one, else the nearest names."""
        name = head(phrase)
        exact = [i for i, (own, kind) in enumerate(self.vlm.classes) if name in (own, kind)]
        if exact:
            return exact
        query = self.vlm.words([name])[0] - self.vlm.class_words.mean(0)
        return [int(i) for i in (self._words @ query).topk(NEAREST).indices]

    @torch.inference_mode()
    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """The largest component of each phrase's map (it is never absent)."""
        frame = self.vlm.frame_of(image.shape[1], image.shape[0])
        with self.vlm.lock:  # an insert of another method may be in the encoder
            logits = [self._logits(image, side) for side in SIDES]
        likely = torch.stack([one.mean(0) for one in logits]).mean(0).softmax(-1)
        groundings = []
        for phrase in phrases:
            rows = self.classes(phrase)
            heat = _map(logits, likely[rows], rows)
            box = frame.to_image(_largest(heat)[None] * (frame.model_width / heat.shape[1]))
            score = np.array([float(likely[rows].sum())])
            groundings.append(Grounding(phrase, box, score, self.score_kind, False, None, heatmap=heat))
        return groundings

    def _logits(self, image: NDArray[np.uint8], side: int) -> Tensor:
        """float32[N, C]: the class activation of each cell of the image as a square of `side` pixels."""
        square = np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
        x_v = self.vlm.features(normalise(torch.from_numpy(square)[None].to(self.vlm.device)))
        return self.vlm.class_logits(x_v)[0]


def _map(logits: Sequence[Tensor], likely: Tensor, rows: list[int]) -> NDArray[np.float32]:
    """float32[FINE, FINE] in 0..1: the activations of these rows, weighted by how likely each is in this image, in the
    mean of the views float[N, C]."""
    fine = np.zeros((FINE, FINE))
    for view in logits:
        cells = math.isqrt(len(view))
        grid = (view[:, rows] * likely / likely.sum()).sum(1).reshape(cells, cells).cpu().numpy()
        fine += ndimage.zoom(grid, FINE / cells, order=1, grid_mode=True, mode="nearest")
    scaled: NDArray[np.float32] = ((fine - fine.min()) / max(float(np.ptp(fine)), 1e-6)).astype(np.float32)
    return scaled


def _largest(heat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Box float64[4], in map cells, of the largest component of the map above the threshold."""
    labels, _ = ndimage.label(heat >= THRESHOLD * heat.max())  # a map without any relief is one component
    biggest = int(np.bincount(labels.ravel())[1:].argmax()) + 1
    rows, columns = np.nonzero(labels == biggest)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float64)

"""Readers of real data sets: each yields `Sample`s and never opens an image."""

from wherein.data.coco import read_coco
from wherein.data.mask import Mask
from wherein.data.pairs import read_pairs
from wherein.data.refcoco import read_refcoco
from wherein.data.sample import LabelledBox, Sample

__all__ = ["LabelledBox", "Mask", "Sample", "read_coco", "read_pairs", "read_refcoco"]

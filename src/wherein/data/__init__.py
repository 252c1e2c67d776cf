"""Readers of real data sets: each yields `Sample`s, image by image, and tells of every bad record where it is."""

from wherein.data.captions import Captioned, read_captions
from wherein.data.coco import read_coco
from wherein.data.complaint import Complain, Complaints, refuse
from wherein.data.dataset import Dataset
from wherein.data.formats import AUTO, FORMATS, open_dataset
from wherein.data.genome import read_genome
from wherein.data.lvis import read_lvis
from wherein.data.mask import Mask
from wherein.data.mdetr import read_mdetr
from wherein.data.narratives import Narrative, read_narratives
from wherein.data.pairs import read_pairs
from wherein.data.reasonseg import read_reasonseg
from wherein.data.refcoco import read_refcoco
from wherein.data.sample import LabelledBox, Sample
from wherein.data.voc import read_voc
from wherein.data.yolo import read_yolo

__all__ = [
    "AUTO",
    "FORMATS",
    "Captioned",
    "Complain",
    "Complaints",
    "Dataset",
    "LabelledBox",
    "Mask",
    "Narrative",
    "Sample",
    "open_dataset",
    "read_captions",
    "read_coco",
    "read_genome",
    "read_lvis",
    "read_mdetr",
    "read_narratives",
    "read_pairs",
    "read_reasonseg",
    "read_refcoco",
    "read_voc",
    "read_yolo",
    "refuse",
]

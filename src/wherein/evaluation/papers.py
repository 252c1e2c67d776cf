"""What the papers print: the numbers that `wherein reproduce` sets beside ours.

PIN (Dorkenwald et al., CVPR'24): tables 1 to 3. Localisation heads (Kang et al., CVPR'25): the tables of referring
expressions (rec, res) and of ReasonSeg, of ten models, and the ablations of LLaVA-1.5-13B on RefCOCO val. A row that a
paper does not have has no published value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Figures = Mapping[str, float]
Published = Mapping[str, Mapping[str, Figures]]
"""By row and data set: each figure the paper prints, in 0..1."""


def _sizes(every: float, medium: float, large: float) -> Figures:
    return {"miou": every, "miou_m": medium, "miou_l": large}


def _pin(voc: Figures, coco: Figures, lvis: Figures | None = None) -> Mapping[str, Figures]:
    return {"voc": voc, "coco": coco, **({} if lvis is None else {"lvis": lvis})}


_NOTHING = _sizes(0, 0, 0)
PIN_1: Published = {  # OpenFlamingo-3B at 224 pixels
    "text": _pin(_NOTHING, _NOTHING, _NOTHING),
    "random": _pin(_sizes(0.22, 0.10, 0.33), _sizes(0.12, 0.07, 0.22), _sizes(0.07, 0.06, 0.18)),
    "in_context 2": _pin(_sizes(0.19, 0.08, 0.30), _sizes(0.10, 0.06, 0.18), _sizes(0.04, 0.03, 0.10)),
    "in_context 5": _pin(_sizes(0.19, 0.07, 0.31), _sizes(0.10, 0.06, 0.20), _sizes(0.06, 0.04, 0.17)),
    "in_context 10": _pin(_sizes(0.20, 0.06, 0.32), _sizes(0.09, 0.05, 0.17), _sizes(0.05, 0.03, 0.15)),
    "coop": _pin(_sizes(0.28, 0.11, 0.43), _sizes(0.22, 0.10, 0.39), _sizes(0.13, 0.07, 0.40)),
    "vpt": _pin(_sizes(0.34, 0.16, 0.51), _sizes(0.26, 0.15, 0.47), _sizes(0.19, 0.14, 0.48)),
    "vpt_encoder": _pin(_sizes(0.42, 0.21, 0.61), _sizes(0.33, 0.22, 0.57), _sizes(0.23, 0.19, 0.56)),
    "lora": _pin(_sizes(0.44, 0.26, 0.62), _sizes(0.33, 0.23, 0.58), _sizes(0.23, 0.19, 0.55)),
    "pin": _pin(_sizes(0.45, 0.27, 0.62), _sizes(0.35, 0.26, 0.59), _sizes(0.26, 0.24, 0.61)),
}
PIN_1_BESIDES: Published = {  # what its authors changed: the training data, the input's size
    "pin trained on COCO": _pin(_sizes(0.45, 0.27, 0.63), _sizes(0.39, 0.31, 0.62)),
    "pin at 448 pixels": _pin(_sizes(0.47, 0.30, 0.65), _sizes(0.37, 0.29, 0.59)),
}
PIN_2: Published = {  # BLIP-2 OPT-2.7B at 224 pixels
    "vpt": _pin(_sizes(0.33, 0.12, 0.51), _sizes(0.27, 0.12, 0.50), _sizes(0.18, 0.11, 0.47)),
    "vpt_encoder": _pin(_sizes(0.32, 0.12, 0.50), _sizes(0.26, 0.11, 0.48), _sizes(0.17, 0.10, 0.46)),
    "pin": _pin(_sizes(0.44, 0.24, 0.63), _sizes(0.34, 0.22, 0.60), _sizes(0.26, 0.23, 0.60)),
}
PIN_2_BESIDES: Published = {
    "pin at 364 pixels": _pin(_sizes(0.47, 0.27, 0.66), _sizes(0.37, 0.26, 0.62)),
}
PIN_3: Published = {  # OpenFlamingo-3B on RefCOCO testA; how many examples its in-context row has is not said
    "text": {"refcoco testa": {"p@0.3": 0.0}},
    "in_context 5": {"refcoco testa": {"p@0.3": 0.037}},
    "pin": {"refcoco testa": {"p@0.3": 0.141}},
    "pin_referral": {"refcoco testa": {"p@0.3": 0.264}},
}

BEST = "LLaVA-1.5-13B"
"""The model of the heads' paper that stands beside one that is none of the paper's, and that its ablations are of."""
_REFERRING = (
    *("refcoco val", "refcoco testa", "refcoco testb"),
    *("refcoco+ val", "refcoco+ testa", "refcoco+ testb"),
    *("refcocog val", "refcocog test"),
)


def _percent(figure: str, sets: Iterable[str], *values: float) -> Mapping[str, Figures]:
    """One figure on several data sets, printed in percent."""
    return {name: {figure: round(value / 100, 4)} for name, value in zip(sets, values, strict=True)}


def _rec(*values: float) -> Mapping[str, Figures]:
    return _percent("p@0.5", _REFERRING, *values)


def _res(*values: float) -> Mapping[str, Figures]:
    return _percent("ciou", _REFERRING, *values)


HEADS_MAIN: Mapping[str, Published] = {  # by table, and in it by model
    "rec": {
        "DeepSeek-VL-1.3B": _rec(73.2, 77.7, 70.7, 62.0, 66.7, 57.1, 65.2, 69.3),
        "Mini-Gemini-2B": _rec(74.0, 77.5, 71.1, 62.5, 67.8, 59.3, 65.1, 69.3),
        "InternVL-6B": _rec(85.2, 86.4, 78.5, 78.0, 83.3, 71.9, 81.1, 80.5),
        "Yi-VL-6B": _rec(85.1, 86.8, 78.4, 78.9, 84.2, 72.2, 80.5, 80.9),
        "DeepSeek-VL-7B": _rec(85.3, 87.2, 81.0, 77.8, 83.9, 73.5, 81.1, 82.8),
        "ShareGPT4V-7B": _rec(86.1, 87.1, 80.5, 79.7, 86.2, 71.3, 82.4, 82.9),
        "LLaVA-7B": _rec(80.3, 83.5, 77.4, 74.5, 80.2, 69.3, 77.5, 77.1),
        "LLaVA-1.5-7B": _rec(86.5, 89.8, 80.2, 80.1, 86.3, 71.9, 82.3, 83.0),
        "LLaVA-13B": _rec(82.8, 85.3, 79.8, 79.3, 82.4, 73.0, 79.8, 79.5),
        BEST: _rec(87.2, 90.0, 83.3, 82.7, 88.5, 74.0, 84.3, 85.5),
    },
    "res": {
        "DeepSeek-VL-1.3B": _res(56.3, 57.0, 52.7, 51.2, 55.5, 49.2, 52.3, 55.8),
        "Mini-Gemini-2B": _res(59.8, 60.3, 55.5, 56.3, 59.9, 51.8, 55.1, 60.3),
        "InternVL-6B": _res(62.1, 65.8, 60.9, 62.2, 65.5, 55.5, 63.5, 65.4),
        "Yi-VL-6B": _res(62.5, 65.8, 60.7, 61.0, 65.3, 56.0, 64.0, 67.0),
        # On RefCOCO+ testA the paper's table 7 has 67.1 where this, its main table, has 66.1.
        "DeepSeek-VL-7B": _res(73.9, 76.6, 70.7, 63.1, 66.1, 56.5, 64.0, 68.9),
        "ShareGPT4V-7B": _res(73.5, 76.7, 70.1, 59.4, 63.8, 55.9, 60.7, 65.1),
        "LLaVA-7B": _res(65.4, 66.2, 61.1, 59.9, 63.2, 52.7, 59.7, 63.3),
        "LLaVA-1.5-7B": _res(74.2, 76.5, 70.4, 62.5, 65.2, 56.0, 64.2, 68.1),
        "LLaVA-13B": _res(66.8, 68.0, 63.7, 62.3, 66.9, 57.3, 65.0, 68.2),
        BEST: _res(76.1, 78.9, 72.8, 64.1, 67.1, 57.3, 67.7, 69.0),
    },
    "reasonseg": {  # of the test split the figure over all its questions
        "LLaVA-1.5-7B": _percent("ciou", ("reasonseg val", "reasonseg test"), 52.4, 48.7),
        BEST: _percent("ciou", ("reasonseg val", "reasonseg test"), 60.5, 49.9),
    },
}


def called(name: str, models: Iterable[str]) -> str:
    """The one of the paper's models that a model's name holds, whatever its case and punctuation; else `BEST`.

    >>> called("llava-hf/llava-1.5-7b-hf", HEADS_MAIN["rec"]), called("default", HEADS_MAIN["rec"])
    ('LLaVA-1.5-7B', 'LLaVA-1.5-13B')
    """
    found = [model for model in models if _plain(model) in _plain(name)]
    return max(found, key=len, default=BEST)


def _plain(name: str) -> str:
    """Letters and digits, without the v of a version: "LLaVA-v1.5" is "llava15"."""
    return re.sub(r"[^a-z0-9]|\bv(?=\d)", "", name.lower())


def _heads(rec: float, res: float) -> Mapping[str, Figures]:
    return {"refcoco val": {"p@0.5": rec, "ciou": res}}


HEADS: Mapping[str, Published] = {
    "k": {
        f"k={k}": {"refcoco val": {"ciou": ciou}} for k, ciou in enumerate((0.717, 0.757, 0.761, 0.760, 0.657), start=1)
    },
    "criteria": {
        "sum only, greedy": _heads(0.237, 0.188),
        "sum only, fixed": _heads(0.239, 0.193),
        "entropy only, greedy": _heads(0.298, 0.215),
        "entropy only, fixed": _heads(0.313, 0.257),
        "both, greedy": _heads(0.674, 0.638),
        "both, fixed": _heads(0.872, 0.761),
    },
    "sigma": {
        f"sigma={sigma}": _heads(rec, res)
        for sigma, rec, res in zip(
            (0.0, 0.4, 0.8, 1.0, 1.4, 1.8),
            (0.855, 0.868, 0.872, 0.872, 0.868, 0.843),
            (0.743, 0.752, 0.761, 0.761, 0.752, 0.727),
            strict=True,
        )
    },
    "kernel": {
        f"kernel={kernel}": _heads(rec, res)
        for kernel, rec, res in zip(
            (1, 3, 5, 7, 9, 11),
            (0.855, 0.865, 0.865, 0.872, 0.872, 0.872),
            (0.743, 0.752, 0.752, 0.761, 0.761, 0.761),
            strict=True,
        )
    },
    "reading": {},
}

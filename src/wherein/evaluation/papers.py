"""What the papers print: the numbers that `wherein reproduce` sets beside ours.

PIN (Dorkenwald et al., CVPR'24): tables 1 to 3. Localisation heads (Kang et al., CVPR'25): the ablations of
LLaVA-1.5-13B on RefCOCO val. A row that a paper does not have has no published value.
"""

from __future__ import annotations

from collections.abc import Mapping

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


def _heads(rec: float, res: float) -> Mapping[str, Figures]:
    return {"refcoco val": {"p@0.5": rec, "ciou": res}}


def _res(ciou: float) -> Mapping[str, Figures]:
    return {"refcoco val": {"ciou": ciou}}


HEADS: Mapping[str, Published] = {
    "k": {f"k={k}": _res(ciou) for k, ciou in enumerate((0.717, 0.757, 0.761, 0.760, 0.657), start=1)},
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

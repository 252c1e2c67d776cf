"""The families of models that are served. A family is one file here, its class in FAMILIES, and a row in the tests."""

from __future__ import annotations

from wherein.vlm.families.blip2 import Blip2, InstructBlip
from wherein.vlm.families.flamingo import Flamingo
from wherein.vlm.families.gemma import Gemma3, PaliGemma
from wherein.vlm.families.idefics import Idefics, Idefics3, SmolVLM
from wherein.vlm.families.internvl import InternVL
from wherein.vlm.families.kosmos2 import Kosmos2
from wherein.vlm.families.llava import Llava, LlavaNext, LlavaOnevision
from wherein.vlm.families.qwen import Qwen2VL, Qwen3VL, Qwen25VL
from wherein.vlm.hf import HFVLM

FAMILIES: tuple[type[HFVLM], ...] = (
    Blip2,
    InstructBlip,
    Llava,
    LlavaNext,
    LlavaOnevision,
    Qwen2VL,
    Qwen25VL,
    Qwen3VL,
    Idefics,
    Idefics3,
    SmolVLM,
    PaliGemma,
    Gemma3,
    InternVL,
    Kosmos2,
    Flamingo,
)

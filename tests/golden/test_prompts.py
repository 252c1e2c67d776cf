"""The words in which every model is asked: a prompt that changes by accident changes every figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wherein.evaluation import asking, vqa
from wherein.methods import insert
from wherein.methods.heads.config import HeadsConfig
from wherein.phrases import noun_phrase
from wherein.training.heads import PLACEHOLDER, PRESETS
from wherein.vlm.default import DefaultVLM
from wherein.vlm.families import FAMILIES
from wherein.vlm.hf import QUESTION


def spoken(model: Any) -> dict[str, Any]:
    """What a model is asked, as the class says it; a checkpoint's own chat template takes the place of `lead`."""
    names = ("lead", "opening", "shared_prompt", "caption_prompt", "locate_prompt", "native_prompt", "codec")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}


def test_prompts(golden: Callable[[str, Any], Any]) -> None:
    found = {
        "question of a chat": QUESTION,
        "phrases": {phrase: noun_phrase(phrase) for phrase in ("cat", "the cat", "an orange cup.", "two dogs")},
        "models": {"default": spoken(DefaultVLM), **{family.family: spoken(family) for family in FAMILIES}},
        "refusal": insert.REFUSAL,
        "heads": {
            "published": HeadsConfig(PLACEHOLDER).prompt,
            **{
                name: {"prompt": preset.prompt, "references": list(preset.references)}
                for name, preset in PRESETS.items()
            },
        },
        "vqa": vqa.PROMPT,
        "probe": {"prompts": asking.PROMPTS, "without a template": asking.BARE},
    }
    assert found == golden("prompts", found)

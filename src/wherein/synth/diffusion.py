"""Pictures of single objects from a text-to-image model (Stable Diffusion), as X-Paste makes them for PIN.

Notable choices:
- the noise of a picture is drawn on the CPU from a seed of its own, so a picture depends neither on the others in its
  batch nor on the device; what remains are the roundings of a batched matrix product
- weights come from safetensors files; a checkpoint that names code of its own is refused before anything is loaded
- the safety checker is the checkpoint's: what it refuses is no picture
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.checkpoints import device_for, reading
from wherein.errors import InputError

STEPS, GUIDANCE = 50, 7.5  # X-Paste's
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # where the parts of a checkpoint may come from


def prompt_for(name: str) -> str:
    """What X-Paste asks the model for."""
    return f"a photo of a single {name}"


def seed_of(seed: int, name: str, index: int) -> int:
    """The seed of picture `index` of a name in a run with `seed`: 32 bits, all that torch's CPU generator takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{name}\n{index}".encode()).digest()[:4])


class Diffusion:
    """A text-to-image pipeline of diffusers, Stable Diffusion 1 or 2, frozen; DPM-Solver multistep."""

    def __init__(self, name: str, device: str = "auto", steps: int = STEPS, guidance: float = GUIDANCE) -> None:
        """Load a pipeline, in float16 on CUDA and in float32 elsewhere.

        Args:
            name: a Hub id or a folder, as diffusers saves it.
            device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1" ...
            steps: of the solver, for a picture.
            guidance: scale of the classifier-free guidance.

        Raises:
            InputError: there is no such checkpoint or device, it is of another kind or has code of its own, or
                diffusers is not installed.
        """
        if find_spec("diffusers") is None:
            raise InputError("Making pictures needs diffusers: pip install 'wherein[synth]'.")
        import torch

        self.name, self.device = name, device_for(device)
        self.steps, self.guidance = steps, guidance
        with _quiet():
            from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

            pipeline: Any = StableDiffusionPipeline
            scheduler: Any = DPMSolverMultistepScheduler
            _check(name, reading(name, "pipeline", lambda: pipeline.load_config(name)))
            dtype = torch.float16 if self.device.startswith("cuda") else torch.float32
            self.pipeline: Any = reading(
                name,
                "weights",
                lambda: pipeline.from_pretrained(name, dtype=dtype, use_safetensors=True),
            )
        self.pipeline.scheduler = scheduler.from_config(self.pipeline.scheduler.config)
        self.pipeline.set_progress_bar_config(disable=True)
        self.pipeline.to(self.device)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[NDArray[np.uint8] | None]:
        """A picture uint8[S, S, 3] for each prompt and seed, at the checkpoint's own size.

        None stands for what the checkpoint's safety checker refuses. Raises InputError: the batch does not fit.
        """
        import torch

        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        try:
            made = self.pipeline(
                list(prompts),
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                generator=generators,
                output_type="np",
            )
        except torch.OutOfMemoryError as error:
            raise InputError(f"{len(seeds)} pictures at once do not fit on {self.device}: lower --batch.") from error
        refused = made.nsfw_content_detected or [False] * len(seeds)
        pictures = (made.images * 255).round().astype(np.uint8)
        return [None if bad else picture for picture, bad in zip(pictures, refused, strict=True)]


def _check(name: str, config: dict[str, Any]) -> None:
    """Raise InputError unless a checkpoint's model_index.json is of a Stable Diffusion made of known parts."""
    kind = config.get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise InputError(
            f"{name} is a {kind}, no StableDiffusionPipeline: choose one such as "
            "stable-diffusion-v1-5/stable-diffusion-v1-5."
        )
    for part, value in config.items():
        library = value[0] if isinstance(value, list | tuple) and value else None
        if not part.startswith("_") and library is not None and library not in _LIBRARIES:
            raise InputError(
                f"{name} takes its {part} from {library!r}: only parts of {', '.join(_LIBRARIES)} are run."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars of loading, and without what transformers says of torchvision whenever diffusers comes."""
    from transformers.utils import logging

    of_transformers: Any = logging
    verbosity, shown = of_transformers.get_verbosity(), of_transformers.is_progress_bar_enabled()
    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()
    try:
        from diffusers.utils import logging as of_diffusers

        of_diffusers.disable_progress_bar()
        yield
    finally:
        of_transformers.set_verbosity(verbosity)
        if shown:
            of_transformers.enable_progress_bar()

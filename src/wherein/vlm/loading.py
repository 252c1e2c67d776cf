"""From a Hub id or a folder to an HFVLM: which family, whether it fits into memory, and one sentence where it does not.

No code from a checkpoint is run, and no pickle is read: weights come from safetensors files (OpenFlamingo's published
`checkpoint.pt` through torch's own reader of tensors).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from wherein.checkpoints import configuration, fast_in, reading
from wherein.errors import InputError
from wherein.vlm.families import FAMILIES
from wherein.vlm.families.flamingo import Flamingo, FlamingoProcessor
from wherein.vlm.hf import HFVLM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HEADROOM = 1.15  # of the weights: activations, the cache of one image


def load(name: str, device: str, dtype: str = "auto", bits: int | None = None, size: int | None = None) -> HFVLM:
    """Load a model of transformers, or an OpenFlamingo, frozen.

    Args:
        name: a Hub id or a folder.
        device: "cpu", "cuda", "cuda:1" ...; "cuda" spreads a model over several GPUs where it does not fit on one.
        dtype: "auto", the checkpoint's own, or float32 on a CPU that is slow in that, if it fits; or one of `DTYPES`.
        bits: 4 or 8 to load quantised, which needs bitsandbytes.
        size: side in pixels of the square that images become, other than the checkpoint's (`HFVLM.resize`).

    Raises:
        InputError: there is no such model or no way to it, its family is not served, it does not fit into memory.
    """
    if dtype not in ("auto", *DTYPES):
        raise InputError(f"There is no dtype {dtype!r}: choose auto, {', '.join(DTYPES)}.")
    if bits not in (None, 4, 8):
        raise InputError(f"A model is loaded in 4 or 8 bits, not {bits}.")
    if _is_flamingo(name):
        if bits is not None:
            raise InputError("An OpenFlamingo is not loaded in few bits: leave bits out.")
        return _flamingo(name, device, dtype, size)
    config = configuration(name)
    family = family_of(config, name)
    parameters = _size(family, config)
    wanted = DTYPES.get(dtype) or _own_dtype(config.dtype or torch.float32, parameters, device)
    check_memory(name, parameters * HEADROOM * (wanted.itemsize if bits is None else bits / 8), device)
    placed = {"device_map": "auto" if device == "cuda" else device} if device != "cpu" or bits else {}
    settings = {"dtype": wanted, "use_safetensors": True, **placed, **_quantised(bits)}
    import transformers

    processor = reading(name, "processor", lambda: load_processor(family, name))
    model = reading(
        name, "weights", lambda: getattr(transformers, family.model_class).from_pretrained(name, **settings)
    )
    return family(model, processor, name, size)


def class_of(name: str) -> type[HFVLM]:
    """The family of the model called `name`, of which nothing but the configuration is read.

    Raises InputError: there is no such model or no way to it, or its family is not served.
    """
    return Flamingo if _is_flamingo(name) else family_of(configuration(name), name)


def family_of(config: Any, name: str) -> type[HFVLM]:
    """The family that serves a model by its configuration's `model_type`. Raises InputError where there is none."""
    kind = config.model_type
    for family in FAMILIES:
        if kind in family.model_types:
            return family
    if not hasattr(config, "vision_config"):
        raise InputError(f"{name} is a {kind} model, which takes text only: choose a vision-language model.")
    raise InputError(
        f"{name} is a {kind} model, a family that is not served yet: `wherein models` lists those that are, and "
        "docs/families.md shows how to add one."
    )


def load_processor(family: type[HFVLM], name: str) -> Any:
    """The family's processor, with the image processor in its PIL form on every machine (see wherein.vlm.views)."""
    from transformers import AutoImageProcessor

    processor = processor_class(family.processor_class).from_pretrained(name)
    processor.image_processor = AutoImageProcessor.from_pretrained(name, backend="pil")  # type: ignore[no-untyped-call]
    return processor


def processor_class(name: str) -> Any:
    """A processor class of transformers, without the video processor that needs torchvision where there is none."""
    import transformers

    base: Any = getattr(transformers, name)
    if "video_processor" not in base.get_attributes():
        return base
    kept = [attribute for attribute in base.get_attributes() if attribute != "video_processor"]
    return type(base.__name__, (base,), {"get_attributes": classmethod(lambda _: kept)})


def _size(family: type[HFVLM], config: Any) -> int:
    """How many parameters a model has, without making them."""
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, family.model_class)(config)
    return sum(p.numel() for p in model.parameters())


def _own_dtype(own: torch.dtype, parameters: int, device: str) -> torch.dtype:
    """A checkpoint's own dtype, or float32 on a CPU that is slow in it, where so many parameters fit in that."""
    slow = device == "cpu" and not fast_in(own, device)
    return torch.float32 if slow and parameters * HEADROOM * torch.float32.itemsize <= _free(device) else own


def check_memory(name: str, need: float, device: str, smaller: str = "--dtype bfloat16, or --bits 4") -> None:
    """Raise InputError where so many bytes are not free on a device, before a long load that would fail.

    `smaller`: with what options the model needs less.
    """
    if need > (free := _free(device)):
        raise InputError(
            f"{name} needs about {need / 2**30:.1f} GiB and {device} has {free / 2**30:.1f} GiB free: "
            f"choose a smaller model, another --device, {smaller}."
        )


def _free(device: str) -> float:
    """Bytes of memory; endless where nothing is known of it, on other devices than CUDA's and, on Linux, the CPU."""
    meminfo = Path("/proc/meminfo")
    if device == "cpu" and meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    if device.startswith("cuda"):
        cards = range(torch.cuda.device_count()) if device == "cuda" else [torch.device(device).index]
        return sum(torch.cuda.mem_get_info(card)[0] for card in cards)
    return float("inf")


def _quantised(bits: int | None) -> dict[str, Any]:
    if bits is None:
        return {}
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise InputError("Loading in 4 or 8 bits needs bitsandbytes: pip install bitsandbytes.")
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(**{f"load_in_{bits}bit": True})}  # type: ignore[no-untyped-call]


def _is_flamingo(name: str) -> bool:
    from wherein.vlm.flamingo import PUBLISHED

    return name.split("/")[-1] in PUBLISHED or (Path(name) / "checkpoint.pt").is_file()


def _flamingo(name: str, device: str, dtype: str, size: int | None) -> Flamingo:
    """An OpenFlamingo by the name of a published one: a Hub id, or a folder of that name with `checkpoint.pt`.

    Folders `language_model` and `vision` in it, where there are any, are taken instead of the Hub's.
    """
    from transformers import AutoImageProcessor
    from transformers.utils.hub import cached_file

    from wherein.vlm.flamingo import PUBLISHED, load, load_tokenizer

    folder, title = Path(name), name.rstrip("/").split("/")[-1]
    if title not in PUBLISHED:
        raise InputError(f"{name} holds an OpenFlamingo; name its folder after one of {', '.join(PUBLISHED)}.")
    known, wanted = PUBLISHED[title], torch.float32 if dtype == "auto" else DTYPES[dtype]
    card = f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device  # all of it goes onto one
    check_memory(name, HEADROOM * wanted.itemsize * known.parameters, card, "or --dtype bfloat16")
    language, vision = (
        str(folder / part) if (folder / part).is_dir() else hub
        for part, hub in (("language_model", known.language_model), ("vision", known.vision))
    )
    path = reading(name, "weights", lambda: cached_file(name, "checkpoint.pt"))
    model = load(Path(path), language, vision, known.cross_attn_every_n_layers, wanted).to(torch.device(device))
    read: Any = AutoImageProcessor.from_pretrained
    images = reading(vision, "image processor", lambda: read(vision, backend="pil"))
    return Flamingo(model, FlamingoProcessor(images, load_tokenizer(language)), name, size)

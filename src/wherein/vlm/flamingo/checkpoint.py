"""Load a published OpenFlamingo: trained parts, language model and vision encoder come from three places.

A published `checkpoint.pt` holds what was trained, under its own names, and is read strictly: each name is used, or is
a known repetition of frozen weights and told in `OpenFlamingo.unused_keys`, or is refused. Names, as found there:

    perceiver.*
    lang_encoder.{blocks}.{i}.gated_cross_attn_layer.*      also as lang_encoder.gated_cross_attn_layers.{i}.*
    lang_encoder.{input embeddings}.weight                  with the rows of <|endofchunk|> and <image>
    lang_encoder.embed_out.weight                           RedPajama's output embeddings, which are not tied
    lang_encoder.{blocks}.{i}.decoder_layer.*, lang_encoder.old_decoder_blocks.*, vision_encoder.*      frozen
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPVisionModel, GPTNeoXForCausalLM, MptForCausalLM, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from wherein.errors import InputError
from wherein.vlm.flamingo.cross_attention import FlamingoLayer
from wherein.vlm.flamingo.model import FlamingoDecoder, LanguageModel, OpenFlamingo
from wherein.vlm.flamingo.mpt import MosaicGpt, MosaicGptConfig

ADDED_TOKENS = ("<|endofchunk|>", "<image>")  # in the order in which they were added


@dataclass(frozen=True)
class FlamingoConfig:
    """A published OpenFlamingo: Hub ids of its three parts, where its cross-attention sits, and how many parameters all
    of it has: its `checkpoint.pt` has no configuration that would tell before it is read."""

    name: str
    checkpoint: str
    language_model: str
    cross_attn_every_n_layers: int
    parameters: int
    vision: str = "openai/clip-vit-large-patch14"


PUBLISHED = {
    name: FlamingoConfig(name, f"openflamingo/{name}", language_model, every, millions * 10**6)
    for name, language_model, every, millions in (
        ("OpenFlamingo-3B-vitl-mpt1b", "anas-awadalla/mpt-1b-redpajama-200b", 1, 2_558),
        ("OpenFlamingo-3B-vitl-mpt1b-langinstruct", "anas-awadalla/mpt-1b-redpajama-200b-dolly", 1, 2_558),
        ("OpenFlamingo-4B-vitl-rpj3b", "togethercomputer/RedPajama-INCITE-Base-3B-v1", 2, 4_039),
        ("OpenFlamingo-4B-vitl-rpj3b-langinstruct", "togethercomputer/RedPajama-INCITE-Instruct-3B-v1", 2, 4_039),
        ("OpenFlamingo-9B-vitl-mpt7b", "anas-awadalla/mpt-7b", 4, 8_131),
    )
}


def load(
    checkpoint: Path,
    language_model: Path | str,
    vision: Path | str,
    cross_attn_every_n_layers: int,
    dtype: torch.dtype = torch.float32,
) -> OpenFlamingo:
    """A frozen OpenFlamingo from a `checkpoint.pt` and the folders or Hub ids of its language model and CLIP.

    Raises InputError if a part cannot be read, or if they do not belong together.
    """
    tokenizer = load_tokenizer(language_model)
    state = _read_weights(checkpoint)
    base = load_language_model(language_model, dtype)
    try:
        encoder = CLIPVisionModel.from_pretrained(str(vision), dtype=dtype)
    except (OSError, ValueError) as error:
        raise InputError(f"The vision encoder {vision} cannot be loaded: {error}") from error
    with torch.device("meta"):  # what is new is filled from the checkpoint, all of it
        model = OpenFlamingo(encoder, base, cross_attn_every_n_layers, tokenizer.get_vocab()[ADDED_TOKENS[1]])
    model.unused_keys = restore(model, state, dtype)
    if (rows := model.get_input_embeddings().num_embeddings) != len(tokenizer):
        raise InputError(
            f"The checkpoint embeds {rows} tokens, the tokenizer of {language_model} has {len(tokenizer)} with "
            "OpenFlamingo's added: give the language model that the checkpoint was trained with."
        )
    return model.requires_grad_(False).eval()


def load_tokenizer(language_model: Path | str) -> PreTrainedTokenizerFast:
    """The language model's tokenizer with OpenFlamingo's tokens, and one for padding where there was none."""
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(language_model))
    except (OSError, ValueError) as error:
        raise InputError(f"The tokenizer of {language_model} cannot be loaded: {error}") from error
    tokenizer.add_tokens(list(ADDED_TOKENS), special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": "<PAD>"})
    return tokenizer  # type: ignore[no-any-return]


def load_language_model(source: Path | str, dtype: torch.dtype) -> LanguageModel:
    """One of the three kinds of language model, by the `model_type` of its config.json; no published code is run."""
    path = _file(source, "config.json")
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is not the configuration of a model: {error}") from error
    kind = config.get("model_type")
    if kind == "mosaic_gpt":
        return _load_mosaic_gpt(source, MosaicGptConfig.parse(config), dtype)
    classes: dict[str, Any] = {"mpt": MptForCausalLM, "gpt_neox": GPTNeoXForCausalLM}
    if kind not in classes:
        raise InputError(f"{source} is a {kind!r} model; OpenFlamingo was built on mosaic_gpt, mpt and gpt_neox.")
    try:
        return classes[kind].from_pretrained(str(source), dtype=dtype)  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:
        raise InputError(f"The language model {source} cannot be loaded: {error}") from error


def restore(model: OpenFlamingo, state: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[str, ...]:
    """Fill the trained parts of `model` from a published state; returns the names that only repeat frozen weights.

    Raises InputError for a missing, unknown or misshapen parameter.
    """
    decoder, blocks = model.decoder, model.decoder.blocks_name
    frozen = re.compile(
        rf"lang_encoder\.({re.escape(blocks)}\.\d+\.decoder_layer|old_decoder_blocks)\.|vision_encoder\."
    )
    found: dict[str, Tensor] = {}
    unused = []
    for name, tensor in state.items():
        ours = re.sub(r"gated_cross_attn_layers\.(\d+)\.", rf"{blocks}.\1.gated_cross_attn_layer.", name)
        if frozen.match(name) or ours in found:
            unused.append(name)
        else:
            found[ours] = tensor.to(dtype)
    _fill(model.perceiver, "perceiver", found)
    for i, layer in enumerate(decoder.blocks):
        if isinstance(layer, FlamingoLayer) and layer.gated_cross_attn_layer is not None:
            _fill(layer.gated_cross_attn_layer, f"lang_encoder.{blocks}.{i}.gated_cross_attn_layer", found)
    _fill_embeddings(decoder, found)
    if found:
        raise InputError(f"The checkpoint holds {_some(found)}, which this model has not: {_HINT}")
    return tuple(unused)


_HINT = "give the language model and cross_attn_every_n_layers that the checkpoint was trained with."


def _fill(module: nn.Module, prefix: str, found: dict[str, Tensor]) -> None:
    """Move a module's parameters out of `found`."""
    parameters = dict(module.named_parameters())
    if missing := [name for name in parameters if f"{prefix}.{name}" not in found]:
        raise InputError(f"The checkpoint lacks {_some(f'{prefix}.{name}' for name in missing)}: {_HINT}")
    taken = {name: found.pop(f"{prefix}.{name}") for name in parameters}
    for name, tensor in taken.items():
        _check_shape(f"{prefix}.{name}", tensor, tuple(parameters[name].shape))
    module.load_state_dict(taken, assign=True)


def _fill_embeddings(decoder: FlamingoDecoder, found: dict[str, Tensor]) -> None:
    """Take the input embeddings, whose rows decide the vocabulary, and the output embeddings if they are not tied."""
    base = decoder.language_model
    embedding: Any = base.get_input_embeddings()
    head: Any = base.get_output_embeddings()
    name = next(name for name, module in base.named_modules() if module is embedding)
    table = found.pop(key := f"lang_encoder.{name}.weight", None)
    if table is None:
        raise InputError(f"The checkpoint lacks {key!r}: {_HINT}")
    _check_shape(key, table, (len(table), embedding.embedding_dim))
    tied = head.weight is embedding.weight
    embedding.weight = nn.Parameter(table)
    output = table if tied else found.pop("lang_encoder.embed_out.weight", head.weight[: len(table)])
    _check_shape("lang_encoder.embed_out.weight", output, tuple(table.shape))
    head.weight = embedding.weight if tied else nn.Parameter(output)
    embedding.num_embeddings = head.out_features = len(table)


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise InputError(f"{name!r} is {list(tensor.shape)} in the checkpoint and {list(expected)} here: {_HINT}")


def _some(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    first, *others = names
    return f"{first!r}" + (f" and {len(others)} more" if others else "")


def _load_mosaic_gpt(source: Path | str, config: MosaicGptConfig, dtype: torch.dtype) -> MosaicGpt:
    state = {
        name: t.to(dtype) for name, t in _read_weights(_file(source, "model.safetensors", "pytorch_model.bin")).items()
    }
    with torch.device("meta"):
        model = MosaicGpt(config)
    state.setdefault("lm_head.weight", state.get("transformer.wte.weight", torch.empty(0)))
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InputError(f"The weights of {source} are not those of its config.json: {error}") from error
    model.tie_weights()
    return model


def _file(source: Path | str, *names: str) -> Path:
    """The first of `names` that a folder or a model on the Hub has."""
    try:
        for name in names:
            if path := cached_file(str(source), name, _raise_exceptions_for_missing_entries=False):
                return Path(path)
    except OSError as error:
        raise InputError(f"{source} is neither a folder with a model nor a model on the Hub: {error}") from error
    raise InputError(f"{source} holds no {' or '.join(names)}.")


def _read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors or, tensors only, a .pt file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a file of weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path} is not a table of parameter names and tensors.")
    return state

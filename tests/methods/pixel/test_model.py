"""The whole model: sizes as published, what is trained and what is not, files, rows that do not mix."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers as T

from wherein.errors import InputError
from wherein.methods.pixel import lora
from wherein.methods.pixel.config import PixelLMConfig
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.parts import assemble, at_side
from wherein.methods.pixel.prompts import Prompts

TRAINED = ("extractor.", "to_words.", "point_head.", "encoders.1.")


def size(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def test_pl_1_shapes_and_what_is_frozen(model: PixelLM, batch: dict[str, Any]) -> None:
    out = model(**batch)
    assert out.logits.shape == (3, 4, 64) and out.points.shape == (3, 4, 2, 2)
    features = model.features(batch["pixels"], batch["sizes"])
    assert [list(x.shape) for x in features] == [[2, 16, 32], [2, 25, 24]]  # SAM's neck, and CLIP without its CLS
    visual = model.visual(features, batch["rows"], Prompts.whole(batch["sizes"][batch["rows"]]))
    assert visual.shape == (3, 4, 32)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(TRAINED) or "lora_" in name}
    assert set(model.trained()) == {name.replace(".", "/") for name in trained}


@pytest.mark.parametrize(("depth", "millions"), [(2, 27.2), (6, 44.0)])
def test_pl_1_sizes_as_published(depth: int, millions: float) -> None:
    with torch.device("meta"):
        model = PixelLM(PixelLMConfig.published(extractor_depth=depth))
    low_rank = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert size(low_rank.values()) == 18_874_368
    assert round(size(model.extractor.parameters()) / 1e6, 1) == millions
    assert model.grids == [(24, 24), (27, 27)]
    assert {p.requires_grad for p in model.encoders[0].parameters()} == {False}
    pairs = [module for module in model.modules() if isinstance(module, lora.LoraLinear)]
    assert all(2 * 32 * (m.in_features + m.out_features) == 2 * size([m.lora_down, m.lora_up]) for m in pairs)
    assert len(pairs) == 2 * 3 * 24  # q and v, of the encoder's and the decoder's own attention and of that across


@pytest.mark.parametrize("kind", ["seq2seq", "decoder"])
def test_pl_1_untrained_updates_change_nothing(tiny: ModuleType, kind: str) -> None:
    torch.manual_seed(3)
    config = tiny.text_config(kind)
    auto = T.AutoModelForSeq2SeqLM if kind == "seq2seq" else T.AutoModelForCausalLM
    base = auto.from_config(config).eval()
    inputs = {"input_ids": torch.tensor([[3, 4, 5]])}
    if kind == "seq2seq":
        inputs["decoder_input_ids"] = torch.tensor([[0, 7]])
    with torch.inference_mode():
        before = base(**inputs).logits
        lora.add(base, ("q", "v", "q_proj", "v_proj"), 4, 2.0)
        assert torch.equal(base(**inputs).logits, before)
        for module in base.modules():
            if isinstance(module, lora.LoraLinear):
                module.lora_up.add_(0.5)
        assert not torch.equal(base(**inputs).logits, before)


def test_an_update_is_scale_times_product() -> None:
    base = torch.nn.Linear(6, 5)
    layer = lora.LoraLinear(base, rank=2, scale=3.0)
    torch.nn.init.normal_(layer.lora_up)
    x = torch.randn(4, 6)
    torch.testing.assert_close(layer(x), base(x) + 3 * x @ (layer.lora_up @ layer.lora_down).T)


def test_features_stand_in_for_pixels(model: PixelLM, batch: dict[str, Any]) -> None:
    features = model.features(batch["pixels"], batch["sizes"])
    given = model(**{**batch, "pixels": None, "features": features})
    assert torch.equal(given.loss, model(**batch).loss)


def test_rows_do_not_mix(model: PixelLM, batch: dict[str, Any]) -> None:
    """Each row alone, its text not filled up, says what it says among others."""
    together = model(**batch)
    for i, picture in enumerate(batch["rows"].tolist()):
        text, labels = batch["text"][i], batch["labels"][i]
        alone = model(
            pixels=batch["pixels"][picture : picture + 1],
            sizes=batch["sizes"][picture : picture + 1],
            text=text[text >= 0][None],
            labels=labels[labels >= 0][None],
            tasks="caption",
        )
        count = int((labels >= 0).sum())
        torch.testing.assert_close(alone.logits[0], together.logits[i, :count], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(alone.points[0], together.points[i, :count], atol=2e-3, rtol=1e-4)


def test_the_padding_is_not_seen(model: PixelLM, batch: dict[str, Any]) -> None:
    """What is written into the part of the square that no picture covers changes nothing."""
    other = batch["pixels"].clone()
    other[1, :, 40:] = 200.0
    features = (model.features(pixels, batch["sizes"]) for pixels in (batch["pixels"], other))
    assert all(torch.equal(a, b) for a, b in zip(*features, strict=True))


def test_saved_and_loaded(model: PixelLM, batch: dict[str, Any], tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors"}
    loaded = PixelLM.from_pretrained(tmp_path).eval()
    weights = loaded.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)
    assert set(loaded.trained()) == set(model.trained())


def test_transformers_knows_it_by_its_type(model: PixelLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = T.AutoConfig.from_pretrained(tmp_path)
    assert type(config) is PixelLMConfig and config.model_type == "wherein_pixel"
    loaded = T.AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is PixelLM and loaded.trained().keys() == model.trained().keys()


def test_transformers_trains_it(tiny: ModuleType, batch: dict[str, Any], tmp_path: Path) -> None:
    """Its Trainer reads the loss and what a prediction is from the output."""
    model = tiny.stirred(PixelLM(tiny.tiny_config("decoder")))
    before = model.point_head.layers[1].weight.clone()
    settings = T.TrainingArguments(
        tmp_path, max_steps=1, learning_rate=0.1, report_to=[], use_cpu=True, remove_unused_columns=False
    )
    trainer = T.Trainer(model, settings, data_collator=lambda _: batch, train_dataset=range(3))  # type: ignore[arg-type]
    trainer.train()
    assert not torch.equal(model.point_head.layers[1].weight, before)
    said = trainer.predict(range(3))  # type: ignore[arg-type]
    logits, points = said.predictions
    assert logits.shape == (3, 4, 64) and points.shape == (3, 4, 2, 2) and said.metrics["test_loss"] > 0


def test_in_half_precision(model: PixelLM, batch: dict[str, Any], tmp_path: Path) -> None:
    """The parts that exist in bfloat16, what lies between them in float32, and nearly the same answers."""
    model.save_pretrained(tmp_path)
    half = PixelLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert half.extractor.tokens.dtype == half.point_head.layers[1].weight.dtype == torch.float32
    assert half.language_model.get_input_embeddings().weight.dtype == torch.bfloat16
    boxes, masks = torch.tensor([[4.0, 4.0, 40.0, 30.0]]).expand(3, -1), torch.ones(3, 64, 64) > 0
    tasks = ["trace", "segment", "caption"]
    ours, halved = (one(**batch, boxes=boxes, masks=masks, tasks=tasks) for one in (model, half))
    torch.testing.assert_close(halved.loss, ours.loss, atol=0.5, rtol=0.1)


def test_gradients_reach_all_that_is_trained(tiny: ModuleType, batch: dict[str, Any]) -> None:
    model = tiny.stirred(PixelLM(tiny.tiny_config("seq2seq")))
    model(**batch).loss.backward()
    unused = {"encoders.1.model.post_layernorm.weight", "encoders.1.model.post_layernorm.bias"}  # of CLIP's CLS
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (parameter.requires_grad and name not in unused), name


def test_masks_are_a_stage_of_their_own(tiny: ModuleType) -> None:
    model = PixelLM(tiny.tiny_config())
    model.train_stage("masks")
    assert {name.split("/")[0] for name in model.trained()} == {"point_head", "mask_adapter"}


def test_of_parts_that_exist(tiny: ModuleType, batch: dict[str, Any]) -> None:
    """A SAM of 96 pixels, a CLIP and a language model: their weights, SAM's tables resized to 64 pixels."""
    torch.manual_seed(5)
    sam, vision = T.SamModel(tiny.sam_config(96)), T.CLIPVisionModel(tiny.vision_config())
    with torch.no_grad():
        sam.vision_encoder.pos_embed.normal_()
    language_model = T.T5ForConditionalGeneration(tiny.text_config("seq2seq"))
    sizes = {"tokens": 4, "extractor_dim": 32, "extractor_out": 24, "lora_rank": 3, "point_dim": 16}
    model = assemble(language_model, sam, vision, side=64, **sizes).eval()
    encoder = model.encoders[0].model
    assert encoder.pos_embed.shape == (1, 4, 4, 32) and encoder.layers[1].attn.rel_pos_h.shape == (7, 16)
    assert torch.equal(encoder.layers[0].attn.rel_pos_h, sam.vision_encoder.layers[0].attn.rel_pos_h)  # a window's
    middle = torch.nn.functional.interpolate(sam.vision_encoder.pos_embed.permute(0, 3, 1, 2), (4, 4), mode="area")
    correlation = torch.corrcoef(torch.stack([middle.flatten(), encoder.pos_embed.permute(0, 3, 1, 2).flatten()]))
    assert correlation[0, 1] > 0.8
    pixels = torch.rand(1, 3, 70, 70) * 255
    whole = torch.tensor([[70.0, 70.0]])
    normal = (pixels / 255 - torch.tensor(model.config.vision_mean)[:, None, None]) / torch.tensor(
        model.config.vision_std
    )[:, None, None]
    vision.eval()
    with torch.inference_mode():
        assert torch.equal(model.encoders[1](pixels, whole), vision(normal).last_hidden_state[:, 1:])
        ids, begin = torch.tensor([[3, 4]]), torch.tensor([[0]])
        language_model.eval()
        logits = language_model(input_ids=ids, decoder_input_ids=begin).logits
        assert torch.equal(model.language_model(input_ids=ids, decoder_input_ids=begin).logits, logits)
    assert torch.isfinite(model(**batch).loss)


def test_sam_as_it_is_at_its_own_size(tiny: ModuleType) -> None:
    torch.manual_seed(6)
    sam = T.SamModel(tiny.sam_config()).eval()
    language_model = T.T5ForConditionalGeneration(tiny.text_config("seq2seq"))
    model = assemble(language_model, sam, side=64, extractor_dim=32, tokens=2).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.encoders[0].model(x).last_hidden_state, sam.get_image_embeddings(x))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fit": "stretch"}, "pad or squash"),
        ({"sam_encodes": False, "vision_config": None}, "needs a vision encoder"),
        ({"points_per_token": 3}, "1 or 2 points"),
        ({"lora_targets": ("query",)}, "no linear layer called query"),
        ({"vision_config": T.CLIPVisionConfig(image_size=64, patch_size=14)}, "image_size to 56"),
        ({"vision_config": T.ResNetConfig()}, "patch_size"),
        ({"vision_config": T.SwinConfig()}, "no stages"),
        ({"extractor_dim": 20}, "extractor_dim is 20.*multiple of 16"),
        ({"extractor_dim": 24}, "extractor_dim is 24.*multiple of 16"),  # its half is not shared out among the heads
        ({"tokens": 0}, "tokens is a whole number from 1 up, not 0"),
        ({"tokens": True}, "tokens is a whole number from 1 up, not True"),
        ({"lora_scale": float("nan")}, "lora_scale is a finite number, not nan"),
        ({"lora_scale": "2"}, "lora_scale is a finite number, not '2'"),
        ({"lora_targets": 3}, "lora_targets are a list of names of layers, not 3"),
        ({"lora_targets": [1]}, "lora_targets are a list of names"),
        ({"tokens": 2.5}, "not 2.5"),
        ({"extractor_depth": 0}, "extractor_depth is a whole number from 1"),
        ({"point_dim": 0}, "point_dim"),
        ({"lora_rank": -1}, "lora_rank is a whole number from 0"),
        ({"proposal_dim": -8}, "proposal_dim"),
        ({"text_config": T.GPT2Config(bos_token_id=None, eos_token_id=None)}, "begin_token_id"),
    ],
)
def test_parts_that_do_not_go_together(tiny: ModuleType, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        PixelLM(tiny.tiny_config(**settings))


def test_a_sam_whose_prompts_are_not_shared_out_among_heads(tiny: ModuleType) -> None:
    sam = tiny.sam_config()
    sam.prompt_encoder_config.hidden_size, sam.vision_config.num_pos_feats = 24, 12
    with pytest.raises(InputError, match="prompt hidden_size of SAM is 24"):
        tiny.tiny_config(sam_config=sam)
    assert tiny.tiny_config(sam_config=sam, sam_encodes=False).prompt_dim == 24  # no masks, and so no heads


def test_a_sam_of_two_sizes(tiny: ModuleType) -> None:
    sam = tiny.sam_config()
    sam.vision_config.image_size = 96
    with pytest.raises(InputError, match="give both the same"):
        tiny.tiny_config(sam_config=sam)
    with pytest.raises(InputError, match="do not fill"):
        at_side(sam, 70)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pixels": None}, "pixels or features"),
        ({"tasks": "paint"}, "choose trace"),
        ({"tasks": ["trace"]}, "3 rows and 1 tasks"),
        ({"points": None}, "teaches points"),
        ({"points": torch.zeros(3, 4, 1, 2)}, "Points have shape"),
        ({"tasks": "refer"}, "teach boxes"),
        ({"tasks": "segment", "boxes": torch.rand(3, 4)}, "teaches masks"),
        ({"pixels": None, "features": [torch.zeros(2, 16, 32)]}, "2 vision encoders"),
    ],
)
def test_calls_that_cannot_be_answered(
    model: PixelLM, batch: dict[str, Any], changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        model(**{**batch, **changed})

"""Places in, visual tokens out: prompts, grids over the same pixels, the transformer between tokens and cells."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
import transformers as T
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamTwoWayTransformer

from wherein.errors import InputError
from wherein.methods.pixel.encoders import align, build, inside
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.prompts import Prompts, embed, places, within
from wherein.methods.pixel.two_way import TwoWay


def test_pl_2_places_make_the_tokens(model: PixelLM, batch: dict[str, Any]) -> None:
    features, rows = model.features(batch["pixels"], batch["sizes"]), torch.tensor([1, 1, 1])
    boxes = torch.tensor([[0.0, 0.0, 64.0, 40.0], [5.0, 5.0, 20.0, 20.0], [30.0, 5.0, 60.0, 35.0]])
    tokens = model.visual(features, rows, Prompts(boxes=boxes))
    distances = torch.cdist(tokens.flatten(1), tokens.flatten(1))
    assert (distances + 10 * torch.eye(3) > 0.1).all()
    points = model.visual(features, rows, Prompts.within(boxes))
    assert (points - tokens).abs().max() > 0.1


def test_pl_2_the_whole_image_where_no_place_is_given(model: PixelLM, batch: dict[str, Any]) -> None:
    """Not the whole square: the second picture is 64 x 40 pixels of it."""
    whole = torch.tensor([[0.0, 0.0, 64.0, 64.0], [0.0, 0.0, 64.0, 40.0], [0.0, 0.0, 64.0, 40.0]])
    given, none = model(**batch, prompts=Prompts(boxes=whole)), model(**batch)
    assert torch.equal(given.logits, none.logits) and torch.equal(given.points, none.points)


def test_points_are_filled_up(model: PixelLM) -> None:
    """SAM puts "not a point" behind points that come without a box: one point is two embeddings and four are five, as
    in the release. A box is four."""
    alone = embed(model.prompt_encoder, Prompts(points=torch.tensor([[[10.0, 20.0]]])))
    assert alone.shape == (1, 2, 32)
    assert torch.equal(alone[0, 1], model.prompt_encoder.not_a_point_embed.weight[0])
    assert embed(model.prompt_encoder, Prompts.within(torch.rand(3, 4))).shape == (3, 5, 32)
    assert embed(model.prompt_encoder, Prompts(boxes=torch.rand(3, 4))).shape == (3, 4, 32)


def test_within_a_box() -> None:
    points = Prompts.within(torch.tensor([[10.0, 20.0, 50.0, 40.0]])).points
    assert points is not None and points.tolist() == [[[20, 25], [40, 25], [20, 35], [40, 35]]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "exactly one"),
        ({"boxes": torch.zeros(1, 4), "points": torch.zeros(1, 1, 2)}, "exactly one"),
        ({"boxes": torch.zeros(4)}, r"\[R, 4\]"),
        ({"points": torch.zeros(1, 2)}, r"\[R, P, 2\]"),
        ({"boxes": torch.full((1, 4), torch.nan)}, "finite"),
    ],
)
def test_prompts_that_are_none(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Prompts(**given)


def test_where_cells_are(model: PixelLM) -> None:
    """The middle of a cell is said as a point there is, but for what a point is."""
    table = places(model.prompt_encoder, (4, 4))
    encoder = model.prompt_encoder
    middle = torch.tensor([[[24.0, 40.0]]]) - 0.5  # SAM says pixels by their corner, and looks at their middle
    point = embed(encoder, Prompts(points=middle))[0, 0] - encoder.point_embed[1].weight[0]
    torch.testing.assert_close(table[2 * 4 + 1], point, atol=1e-4, rtol=1e-4)


def test_how_much_of_a_cell_is_in_a_place() -> None:
    """Cells of 10 x 20 pixels: a box over one and a half columns, a point in a corner, another at the edge."""
    boxes = within(Prompts(boxes=torch.tensor([[10.0, 0.0, 25.0, 10.0], [0.0, 0.0, 40.0, 40.0]])), (2, 4), 40)
    assert boxes.reshape(2, 2, 4).tolist() == [[[0, 0.5, 0.25, 0], [0, 0, 0, 0]], [[1, 1, 1, 1], [1, 1, 1, 1]]]
    points = torch.tensor([[[10.0, 20.0], [35.0, 30.0]]])
    share = within(Prompts(points=points), (2, 4), 40)
    assert share.reshape(2, 4).tolist() == [[0.25, 0.25, 0, 0], [0.25, 0.25, 0, 1]]


def test_grids_cover_the_same_pixels() -> None:
    """A ramp seen by grids of 24 and of 27 cells over one picture agrees after alignment, to what bicubic resizing
    makes of a ramp (bug P-7: 27 patches of 14 pixels, laid over all 384, are up to 6 pixels off)."""

    def ramp(cells: int) -> torch.Tensor:
        x = (torch.arange(cells) + 0.5) * 384 / cells
        y, x = torch.meshgrid(x, x, indexing="ij")
        return torch.stack([x, y], dim=-1).flatten(0, 1)[None]

    fused, grid = align([ramp(24), ramp(27)], [(24, 24), (27, 27)])
    assert grid == (27, 27) and fused.shape == (1, 729, 4)
    inner = fused[0].view(27, 27, 4)[3:-3, 3:-3]
    torch.testing.assert_close(inner[..., :2], inner[..., 2:], atol=1.0, rtol=0)
    unseen = (torch.arange(27) + 0.5) * 14
    assert (unseen[3:-3] - inner[0, :, 0]).abs().max() > 4


def test_encoders_see_the_same_place(model: PixelLM) -> None:
    """A bright corner changes the features of that corner most, in either encoder's grid."""
    dark, sizes = torch.zeros(1, 3, 64, 64), torch.tensor([[64.0, 64.0]])
    bright = dark.clone()
    bright[..., 51:, 51:] = 255.0
    for encoder in model.encoders:
        x = encoder.model
        patches = x.patch_embed if hasattr(x, "patch_embed") else x.embeddings.patch_embedding
        seen: list[torch.Tensor] = []
        hook = patches.register_forward_hook(lambda _, __, out: seen.append(out))  # noqa: B023 - called at once
        try:
            encoder(dark, sizes), encoder(bright, sizes)
        finally:
            hook.remove()
        change = (seen[1] - seen[0]).abs()
        change = change.sum(-1) if change.shape[-1] > 20 else change.sum(1)
        rows, columns = change.shape[1:]
        assert change[0].argmax() == rows * columns - 1


def test_an_encoder_without_a_feature_for_each_patch(tiny: ModuleType) -> None:
    """MAE's leaves most patches out, and SAM's has another width than its configuration says."""
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
    mae = T.ViTMAEConfig(**small, intermediate_size=32)
    sam = T.SamVisionConfig(**small, output_channels=8, mlp_dim=32, global_attn_indexes=[0])
    for vision, said in ((mae, "ViTMAEModel gives 5 features of 24 values, not 16 of 24"), (sam, "16 features of 8 v")):
        encoder = build(tiny.tiny_config(vision_config=vision, sam_encodes=False))[0]
        with pytest.raises(InputError, match=said), torch.inference_mode():
            encoder(torch.rand(1, 3, 64, 64), torch.tensor([[64.0, 64.0]]))


def test_inside() -> None:
    covered = inside(torch.tensor([[3.0, 2.0], [4.0, 4.0]]), 4)
    assert covered.sum((1, 2)).tolist() == [6, 16] and covered[0, 1, 2] and not covered[0, 2, 1]


def test_the_transformer_is_sams() -> None:
    """With the same weights, and the last attention of half width."""
    torch.manual_seed(0)
    config = SamMaskDecoderConfig(hidden_size=32, num_hidden_layers=3, mlp_dim=2048)
    config._attn_implementation = "eager"
    theirs = SamTwoWayTransformer(config).eval()
    ours = TwoWay(32, depth=3)
    ours.load_state_dict(theirs.state_dict())
    tokens, cells, code = torch.randn(2, 5, 32), torch.randn(2, 12, 32), torch.randn(1, 12, 32)
    image, where = (x.transpose(1, 2).reshape(-1, 32, 3, 4) for x in (cells, code))
    expected, _ = theirs(tokens[:, None], image, where, None)
    torch.testing.assert_close(ours(tokens, cells, code), expected[:, 0], atol=1e-5, rtol=1e-5)


def test_masked_cells_are_not_there() -> None:
    torch.manual_seed(0)
    two_way = TwoWay(32, depth=2)
    tokens, cells, code = torch.randn(1, 3, 32), torch.randn(1, 9, 32), torch.randn(1, 9, 32)
    mask = torch.arange(9)[None] < 6
    seen = two_way(tokens, cells, code, mask)
    torch.testing.assert_close(seen, two_way(tokens, cells[:, :6], code[:, :6]))
    assert (seen - two_way(tokens, cells, code)).abs().max() > 1e-3


def test_the_default_encoder_is_a_part(tiny: ModuleType) -> None:
    """EfficientNet-Lite2 as the second of two encoders, and alone, without a SAM to encode."""
    from wherein.methods.pixel.config import LiteConfig

    for sam_encodes, grids in ((True, [(4, 4), (2, 2)]), (False, [(2, 2)])):
        config = tiny.tiny_config(vision_config=LiteConfig(image_size=64), sam_encodes=sam_encodes)
        model = PixelLM(type(config)(**config.to_dict())).eval()
        assert model.grids == grids and model.encoders[-1].width == 1280
        with torch.inference_mode():
            features = model.features(torch.rand(1, 3, 64, 64) * 255)
            tokens = model.visual(features, torch.tensor([0]), Prompts.whole(torch.tensor([[64.0, 64.0]])))
        assert torch.isfinite(tokens).all()
        assert any("prompt_encoder" in name for name in model.kept()) != sam_encodes

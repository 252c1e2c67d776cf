"""The pixel-aligned language model (PixelLLM, CVPR'24): all parts, from pixels or features to losses.

    pixels -> encoders -> features on one grid --(places)--> extractor -> to_words -> language model
           -> (logits | points behind each token | masks)

Notable choices:
- B pictures and R rows: any number of places and texts a picture, each row naming its picture, none filled up
- what the encoders say of a picture may be given instead of its pixels: a frozen encoder runs once an image
- encoders, mask decoder and language model keep the dtype they come in; what lies between them is float32
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel, initialization
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPositionalEmbedding, SamPromptEncoder
from transformers.utils.generic import ModelOutput

from wherein.errors import InputError
from wherein.methods.pixel import encoders, lora, losses
from wherein.methods.pixel.carrier import QUIET, Carrier
from wherein.methods.pixel.config import PixelLMConfig
from wherein.methods.pixel.extractor import PromptFeatureExtractor
from wherein.methods.pixel.language import IGNORED, Reading
from wherein.methods.pixel.masks import MaskAdapter, draw
from wherein.methods.pixel.points import PointHead, boxes_between
from wherein.methods.pixel.prompts import Prompts, embed, places, within
from wherein.methods.pixel.proposals import ProposalHead
from wherein.methods.pixel.targets import Targets

BETWEEN = (
    "prompt_encoder",
    "extractor",
    "to_words",
    "carrier",
    "point_head",
    "mask_adapter",
    "proposals",
    "lora_down",
    "lora_up",
)
STAGES = {
    "words": ("extractor", "to_words", "carrier", "point_head", "proposals", "lora_down", "lora_up"),
    "masks": ("point_head", "mask_adapter"),
}
"""What is trained: for captions, traces, phrases and boxes; and after that, for masks."""


@dataclass(eq=False)
class PixelOutput(ModelOutput):
    """What a forward pass says; all of it is there but for masks, which need a row that teaches one.

    loss: the weighted sum of the three behind it, float32[] each · logits float[R, T, V] before each label · points
    float[R, T, P, 2] behind each, model pixels · masks float[M, 4h, 4w]: logits for the rows `drawn` int64[M] ·
    skipped: phrases that teach nothing, since their last word was cut off.
    """

    loss: Tensor
    text_loss: Tensor | None = None  # transformers wants one field without a default value, the first
    point_loss: Tensor | None = None
    mask_loss: Tensor | None = None
    logits: Tensor | None = None
    points: Tensor | None = None
    masks: Tensor | None = None
    drawn: Tensor | None = None
    skipped: int | None = None


class PixelLM(PreTrainedModel):  # type: ignore[no-untyped-call]
    """See above; `PixelLMConfig` names the parts. A new one has first values for weights; `parts` has real ones.

    `language_model`: one that has its weights, in place of a new one; it becomes a part, updates and all. `connector`:
    what the first encoder's features float[B, N, C] are in words, float[B, N, D_t], for a model that carries them;
    another model's, and so no part of this one, nor saved with it.
    Everything is frozen but what the stage "words" trains; see `train_stage`.
    Raises InputError for a model that carries words without a connector.
    """

    config: PixelLMConfig
    config_class = PixelLMConfig
    main_input_name = "pixels"
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = list(BETWEEN)

    def __init__(
        self, config: PixelLMConfig, language_model: Any = None, connector: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(config)
        if config.carries and connector is None:
            raise InputError(
                "This pixel-aligned model carries words from a connector: build it with one, and load it with "
                "from_pretrained(folder, connector=...), since a connector is another model's and not saved."
            )
        self.connector = None if connector is None else partial(connector)  # a module would become a part
        sam = config.sam_config
        made = encoders.build(config)
        self.encoders: Any = nn.ModuleList(made)
        self.prompt_encoder = SamPromptEncoder(sam)
        if config.sam_encodes:
            sam.mask_decoder_config._attn_implementation = config._attn_implementation
            self.mask_decoder = SamMaskDecoder(sam.mask_decoder_config)
            self.mask_adapter = MaskAdapter(config.text_dim, config.prompt_dim, config.adapter_depth)
        self.extractor = PromptFeatureExtractor(
            sum(encoder.width for encoder in made),
            config.prompt_dim,
            config.extractor_dim,
            config.extractor_depth,
            config.tokens,
            config.extractor_out,
        )
        self.to_words = nn.Sequential(
            nn.Linear(config.extractor_out, config.text_dim), nn.LayerNorm(config.text_dim, eps=1e-5)
        )
        kind: Any = AutoModelForSeq2SeqLM if config.text_config.is_encoder_decoder else AutoModelForCausalLM
        self.language_model = kind.from_config(config.text_config) if language_model is None else language_model
        lora.add(self.language_model, config.lora_targets, config.lora_rank, config.lora_scale)
        self.point_head = PointHead(config.text_dim, config.point_dim, config.points_per_token)
        if config.proposal_dim:
            self.proposals = ProposalHead(sum(encoder.width for encoder in made), config.proposal_dim)
        if config.carries:
            self.carrier = Carrier(config.extractor_out, sum(encoder.width for encoder in made), config.prompt_dim)
        self.post_init()  # type: ignore[no-untyped-call]
        if config.carries:
            with torch.no_grad():
                self.to_words[1].weight.fill_(QUIET)  # type: ignore[operator]
        self.train_stage("words")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, PromptFeatureExtractor | MaskAdapter):
            module.start()
        elif isinstance(module, SamPositionalEmbedding):
            initialization.normal_(module.positional_embedding)
        elif isinstance(module, SamPromptEncoder):  # as SAM itself has them: as large as the positions beside them
            for kind in (*module.point_embed, module.not_a_point_embed, module.no_mask_embed):
                initialization.normal_(kind.weight)

    def train_stage(self, stage: str) -> None:
        """Let gradients reach what is trained in this stage, one of `STAGES`, and nothing else."""
        trained = STAGES[stage]
        if stage == "words" and self.config.vision_trains and self.config.vision_config is not None:
            trained += (f"encoders.{len(self.encoders) - 1}.",)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(trained) or name.endswith(trained))

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> PixelLM:
        """As of every model of transformers, from a folder or the Hub; frozen as a new one is.

        A model that carries words needs `connector=` here, too: see the class. Raises InputError without it.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model: PixelLM = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info
        model.train_stage("words")
        return loaded

    def trained(self) -> nn.ParameterDict:
        """The parameters of this stage as a module of their own: what a trainer steps and saves, and an adapter is."""
        return nn.ParameterDict({name.replace(".", "/"): p for name, p in self.named_parameters() if p.requires_grad})

    def kept(self) -> nn.ParameterDict:
        """What an adapter must hold: what is trained, and without a SAM the prompt encoder, which nobody else has."""
        kept = self.trained()
        if not self.config.sam_encodes:
            named = self.prompt_encoder.named_parameters()
            kept.update({f"prompt_encoder/{name.replace('.', '/')}": p for name, p in named})
        return kept

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Rows and columns of each encoder's features."""
        return [encoder.grid for encoder in self.encoders]

    def features(self, pixels: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
        """Pixels float[B, 3, S, S], 0..255 -> what each encoder says of them, float[B, N_i, C_i].

        `sizes` float[B, 2]: width and height of each picture in the square, model pixels; None: all of it.
        """
        sizes = self._sizes(len(pixels)) if sizes is None else sizes.to(self.device)
        pixels = pixels.to(self.device, torch.float32)
        return [encoder(pixels, sizes) for encoder in self.encoders]

    def visual(self, features: Sequence[Tensor], rows: Tensor, prompts: Prompts) -> Tensor:
        """What the language model sees of each row's place: visual tokens float32[R, tokens, D_t]."""
        if len(features) != len(self.encoders):
            raise InputError(f"The model has {len(self.encoders)} vision encoders: give as many features.")
        cells, grid = encoders.align([x.to(self.device) for x in features], self.grids)
        encoder = self.prompt_encoder
        where = places(encoder, grid)
        extracted = self.extractor(
            cells[rows], embed(encoder, prompts.to(self.device)), encoder.no_mask_embed.weight[0], where
        )
        said: Tensor = self.to_words(extracted)
        if self.connector is None:
            return said
        with torch.no_grad():
            words = self.connector(features[0])[rows]
        share = within(prompts.to(self.device), grid, self.config.side)
        return said + self.carrier(extracted, cells[rows], where, words, share)  # type: ignore[no-any-return]

    def forward(
        self,
        labels: Tensor,
        pixels: Tensor | None = None,
        features: Sequence[Tensor] | None = None,
        sizes: Tensor | None = None,
        rows: Tensor | None = None,
        prompts: Prompts | None = None,
        text: Tensor | None = None,
        tasks: str | Sequence[str] = "trace",
        points: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> PixelOutput:
        """The losses of R captions or phrases about B pictures, all places in model pixels.

        Args:
            labels: int64[R, T], tokens and the end behind them, filled up with -100.
            pixels: float[B, 3, S, S], 0..255; or
            features: of `self.features`, float[B, N_i, C_i] of each encoder.
            sizes: float[B, 2], width and height of the pictures in the square; None: all of it.
            rows: int64[R], the picture of each row; None: one row a picture.
            prompts: R places; None: the whole pictures.
            text: int64[R, S], the text before the caption, filled up with -1; None: none.
            tasks: of `losses.TASKS`, one for all rows or one each: which of the losses a row has.
            points: float[R, T, P, 2], where each label's token is; all zero where it has no place.
            boxes: float[R, 4], what each phrase means.
            masks: bool[R, S, S], the same over the square.

        Raises:
            InputError: neither or both of pixels and features, or a task without what it teaches.
        """
        device = self.device
        labels, text = labels.to(device), None if text is None else text.to(device)
        if (pixels is None) == (features is None):
            raise InputError("A model is given pixels or features: exactly one of the two.")
        count = len(pixels) if pixels is not None else len(features[0])  # type: ignore[index]
        sizes = self._sizes(count) if sizes is None else sizes.to(device)
        seen = self.features(pixels, sizes) if pixels is not None else features
        assert seen is not None
        rows = torch.arange(count, device=device) if rows is None else rows.to(device)
        shown = sizes[rows]
        visual = self.visual(seen, rows, Prompts.whole(shown) if prompts is None else prompts)
        states, logits, said = self.behind(visual, text, labels, shown)
        text_loss, point_loss, targets = self.taught(logits, said, labels, tasks, points, boxes)
        mask_loss, drawn, at = text_loss.new_zeros(()), None, None
        drawing = losses.switched(tasks, len(labels), "mask", device)
        if drawing.any():
            if masks is None:
                raise InputError("The task segment teaches masks: give them.")
            at, place = (drawing[:, None] & targets.last).nonzero().T
            box = boxes_between(said)[at, place]
            drawn, expected = self.draw(seen, rows[at], box, visual[at], states[at], labels[at])
            valid = encoders.inside(shown[at], self.config.side)
            mask_loss = losses.mask_loss(drawn, expected, masks.to(device)[at], valid)
        loss = text_loss + losses.POINT_WEIGHT * point_loss + mask_loss
        return PixelOutput(loss, text_loss, point_loss, mask_loss, logits, said, drawn, at, targets.skipped)

    def behind(
        self, visual: Tensor, text: Tensor | None, labels: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What a text that is given leaves behind: states float[R, T, D] after each label's token, logits
        float[R, T, V] before it, points float[R, T, P, 2] after it."""
        begin = labels.new_full((len(labels), 1), self.config.begin_token_id)
        tokens = torch.cat([begin, labels.masked_fill(labels == IGNORED, self.config.end_token_id)], dim=1)
        states, logits = Reading(self.language_model, visual, text).all(tokens)
        return states[:, 1:], logits[:, :-1], self.point_head(states[:, 1:], sizes)

    def taught(
        self,
        logits: Tensor,
        said: Tensor,
        labels: Tensor,
        tasks: str | Sequence[str] = "trace",
        points: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Targets]:
        """The losses float32[] of the tokens and of the points that `behind` gave for these labels, unweighted, and
        what was to be said; the other arguments, and errors, as of `forward`."""
        count, end = self.config.points_per_token, self.config.end_token_id
        targets = Targets.of(labels, tasks, points, boxes, count, end)
        learnt = losses.switched(tasks, len(labels), "text", labels.device)[:, None]
        text_loss = losses.text_loss(logits, labels.masked_fill(~learnt, IGNORED))
        return text_loss, losses.point_loss(said, targets.points, targets.placed), targets

    def draw(
        self, features: Sequence[Tensor], rows: Tensor, boxes: Tensor, visual: Tensor, states: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A mask for each box float[R, 4] of picture `rows[i]`, and the IoU expected of it; see `masks`.

        Raises InputError for a model without SAM's image encoder.
        """
        if not self.config.sam_encodes:
            raise InputError("Masks need SAM's image encoder: build the model with sam_encodes.")
        image = features[0].to(self.device)[rows].transpose(1, 2).reshape(len(rows), -1, *self.grids[0])
        said = (labels != IGNORED) & (labels != self.config.end_token_id)
        added = self.mask_adapter(visual, states.to(visual), said)
        return draw(self.prompt_encoder, self.mask_decoder, image, boxes, added)

    def propose(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Of each cell of the finest grid: the logit float[B, N] that it is in the middle of a thing, and that thing's
        box float[B, N, 4], model pixels.

        Raises InputError for a model without a head for it.
        """
        if not self.config.proposal_dim:
            raise InputError("This pixel-aligned model proposes no boxes: build it with a proposal_dim, and train it.")
        cells, grid = encoders.align([x.to(self.device) for x in features], self.grids)
        return self.proposals(cells, grid, self.config.side)  # type: ignore[no-any-return]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest of the encoders' features."""
        return max(self.grids, key=lambda grid: grid[0] * grid[1])

    def _sizes(self, count: int) -> Tensor:
        return torch.full((count, 2), float(self.config.side), device=self.device)


AutoModel.register(PixelLMConfig, PixelLM)

"""HFVLM: any vision-language model of transformers as a FrozenVLM, through its own forward pass.

Nothing of a model is rewritten. An image's features are caught on their way into the connector; where they are given
again, the encoder's blocks are passed over and the connector receives them, so that everything else (packing of tiles,
rotary positions, masks, deep stacks) stays the family's own code. A family is a subclass with a few attributes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from wherein.errors import InputError
from wherein.geometry import Frame
from wherein.vlm.arrivals import arrivals
from wherein.vlm.base import Cells, FrozenVLM, ImageTokens
from wherein.vlm.mixing import Mixer, Mixing
from wherein.vlm.prefix import Continuation, Prefix
from wherein.vlm.replay import Replay
from wherein.vlm.seams import Seams
from wherein.vlm.views import Views

QUESTION = "What is in the image, and where?"
ANCHOR = "is"  # a text continues behind a word, which decides how tokenizers treat its first space
PER_TOKEN = ("mm_token_type_ids", "token_type_ids", "image_embeds_position_mask")  # inputs that are 0 at text
TRAINED_AT = 448  # side of the images that a model of any resolution is trained with, pixels


class HFVLM(FrozenVLM):
    """A family of transformers models; see `wherein.vlm.families` for them.

    What a family says, in class attributes (paths are those of modules in the model):
    family, model_types (of the configuration), processor (class) · views: what the image processor does to an image ·
    connector, argument: the module that receives x_v, and by which name if not as the first argument · others: further
    modules that receive features of other depths · projection: gives the connector's output, if another module ·
    blocks: the vision encoder's blocks · patches: embeds them · width_key: what its configuration calls D_v ·
    appends: text behind an image is read as it is where it runs in the same forward pass (no image token looks at it) ·
    leading: rows of x_v that are no patch (CLS) · lead: the prompt up to the answer, for a checkpoint without a chat
    template · opening: what stands before a user's words, where that is not all before QUESTION in it · checkpoint,
    licence: of the usual weights.
    """

    family: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    model_class: ClassVar[str]
    processor_class: ClassVar[str]
    views: ClassVar[staticmethod[[Any, int, int], Views]]
    connector_path: ClassVar[str] = "model.multi_modal_projector"
    argument: ClassVar[str | None] = None
    others_path: ClassVar[str | None] = None
    projection_path: ClassVar[str | None] = None
    blocks_path: ClassVar[str]
    patches_path: ClassVar[str]
    width_key: ClassVar[str] = "hidden_size"
    appends: ClassVar[bool] = True
    leading: ClassVar[int] = 0
    lead: ClassVar[str] = ""
    opening: ClassVar[str | None] = None
    checkpoint: ClassVar[str]
    licence: ClassVar[str]

    codec = "grid16"
    best_method = "text"
    shared_prompt = " In the image is"
    caption_prompt = ""
    locate_prompt = " {phrase} located at"
    keeps_cells = False

    def __init__(self, model: Any, processor: Any, name: str, size: int | None = None) -> None:
        """`size`: side in pixels of the square that images become, other than the checkpoint's.

        Raises InputError where the family cannot be resized, or patches do not tile such an image.
        """
        self.name, self.processor, self.tokenizer = name, processor, processor.tokenizer
        self.model = self.language_model = model.eval().requires_grad_(False)
        self._further: dict[str, Any] = {}
        sparing = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last = {"logits_to_keep": 1} if sparing else {}  # of a prefix, no logits are needed
        if size is not None:
            self.resize(size)
        self.connector = model.get_submodule(self.connector_path)
        self.encoder_blocks = model.get_submodule(self.blocks_path)
        self.takes_rows = self.latents
        self.feature_dim = self.features_width()
        self.seams = self._seams()
        self._processed = lru_cache(maxsize=16)(self._blank)
        self._tokens = lru_cache(maxsize=64)(self._find_tokens)
        side = self.frame_of(TRAINED_AT, TRAINED_AT).model_width
        self._own = self.frame_of(side, side)
        self._rows = len(self.cells().boxes)  # of x_v for one image, in the forward pass that runs
        self.size = (self._own.model_width, self._own.model_height)
        self.grid = _tiled(self._own, self.patch())[1]

    # What a family may have to say otherwise.

    def resize(self, size: int) -> None:
        """Take square images of `size` pixels, the encoder's position embeddings interpolated (PIN, section 5)."""
        raise InputError(
            f"Models of the family {self.family} have one resolution, or follow the image: leave size out."
        )

    def patch(self) -> int:
        """Side of the cell of a row of x_v, model pixels."""
        return int(self.model.config.vision_config.patch_size)

    def token(self) -> int:
        """Side of the cell of an image token of the language model, model pixels."""
        return self.patch()

    def raster(self, rows: int, columns: int) -> NDArray[np.int64]:
        """int64[rows * columns]: the raster index of each row of x_v within a view."""
        return np.arange(rows * columns)

    def token_raster(self, rows: int, columns: int) -> NDArray[np.int64]:
        """int64[rows * columns]: the raster index of each token that leaves the connector, within a view."""
        return np.arange(rows * columns)

    def call(self, text: str, image: Image.Image) -> Mapping[str, Any]:
        """The processor's answer for one image and the text around it.

        Not an array: one of a few rows would be taken for one with its channels first.
        """
        return self.processor(text=text, images=[image], return_tensors="pt")  # type: ignore[no-any-return]

    def decoder(self) -> Any:
        """The language model's stack of blocks."""
        decoder = self.model.get_decoder()
        return decoder if hasattr(decoder, "layers") else decoder.get_decoder()

    def first_position(self) -> int:
        """The position id of a sequence's first token."""
        return 0

    def follow(self, out: Any) -> tuple[Any, dict[str, Tensor], bool]:
        """(decoder, further inputs, whether it takes positions) for the text behind a forward pass that gave `out`."""
        return self.decoder(), {}, True

    def mixers(self) -> list[Mixer]:
        """The attentions through which a connector's latents come by what they hold, in the order in which they run."""
        raise NotImplementedError

    def latent_positions(self) -> NDArray[np.int64]:
        """int64[M]: where the latents stand among the keys of the attention seam."""
        positions, order = self._arrivals(TRAINED_AT, TRAINED_AT, lambda count: np.arange(count)[:, None] / count)
        return positions[np.argsort(order[:, 0])]

    def features_width(self) -> int:
        """D_v."""
        return int(getattr(self.model.config.vision_config, self.width_key))

    # What follows from it.

    @property
    def device(self) -> torch.device:
        """Where text goes in."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The model's dtype."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter of the model."""
        yield from self.model.named_parameters()

    def seam(
        self, name: str, insert: Callable[..., Tensor | None], layers: Sequence[int] | None = None
    ) -> AbstractContextManager[None]:
        """See FrozenVLM. At `features`, x_v pass as float[B, N, D_v], whatever the family has there."""
        if name != "features":
            return super().seam(name, insert, layers)

        def by_image(x: Tensor) -> Tensor | None:
            """Tiles, or the patches of all images in one row, image by image; one image where that does not fit."""
            count = x.shape[:-1].numel()
            rows = self._rows if count % self._rows == 0 else count
            made = insert(x.reshape(-1, rows, x.shape[-1]))
            return None if made is None else made.reshape(*x.shape[:-2], -1, x.shape[-1])

        return super().seam(name, by_image)

    def encode(self, text: str) -> list[int]:
        """Text -> token ids as they stand behind a word, no special tokens added."""
        known = self.tokenizer.encode(ANCHOR, add_special_tokens=False)
        ids = list(self.tokenizer.encode(ANCHOR + text, add_special_tokens=False))
        if ids[: len(known)] == known:
            return ids[len(known) :]
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def frame_of(self, width: int, height: int) -> Frame:
        """The Frame of an image of this size: that of the view which shows all of it."""
        views = self.views_of(width, height)
        return views.frames[views.whole]

    def views_of(self, width: int, height: int) -> Views:
        """Every view of an image of this size that the encoder is given."""
        return type(self).views(self.processor.image_processor, width, height)

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> tuple[dict[str, Tensor], list[Frame]]:
        """uint8[H, W, 3] images -> the model's inputs, and one Frame each. Images of one batch fill as many tokens.

        Raises InputError where they do not.
        """
        frames = [self.frame_of(image.shape[1], image.shape[0]) for image in images]
        return self._stack([dict(self.call(self._lead, Image.fromarray(image))) for image in images]), frames

    def features(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """The model's inputs -> x_v float[B, N, D_v] (before each row's, the features of other depths, if any).

        Gradients reach what was put into the encoder.
        """
        x_v = self._replay.catch(lambda: self.model(**self._on_device(pixels), **self._further))
        return x_v.reshape(len(pixels["input_ids"]), -1, x_v.shape[-1])

    def prefix(
        self,
        x_v: Tensor,
        frames: Sequence[Frame] | None = None,
        cells: Tensor | None = None,
        bare: bool = False,
        before: Prefix | None = None,
        text: Sequence[int] = (),
    ) -> Prefix:
        """The model's own forward pass on the features and the prompt up to the answer; see FrozenVLM."""
        if cells is not None:
            raise InputError(f"{self.name} cannot be shown some of an image's cells only.")
        text = [*([] if bare else self.encode(self.shared_prompt)), *text]
        frames = frames or [self._own] * len(x_v)
        inputs = self._on_device(self._stack([self._processed(frame.width, frame.height, bare) for frame in frames]))
        starting = self._starting(len(x_v))
        if self.appends and not starting:
            inputs, text = self._followed(inputs, text), []
        if before is not None:
            inputs |= self._behind(before, inputs)
        self._rows = x_v.shape[1]
        last: list[Tensor] = []
        decoder = self.decoder()
        hook = decoder.register_forward_hook(lambda _, __, out: last.append(out.last_hidden_state[:, -1]))
        try:
            with self._replay.give(x_v):
                out = self.model(**inputs, **starting, **self._further, **self._last, use_cache=True)
        finally:
            hook.remove()
        inner = out if getattr(out, "past_key_values", None) is not None else out.language_model_outputs
        following, extra, placed = self.follow(out)
        length = inner.past_key_values.get_seq_length()
        shift = getattr(getattr(self.model, "model", None), "rope_deltas", None)
        position = torch.full((len(x_v),), length + self.first_position(), device=last[-1].device)
        position = position if shift is None else position + shift.reshape(-1).to(position.device)
        start = Prefix(
            following, self._head, inner.past_key_values, length, position if placed else None, last[-1], extra
        )
        if not text:
            return start
        continuation = Continuation(start, range(len(x_v)), last_use=True)
        continuation.hidden([text] * len(x_v))
        return continuation.reached()

    def cells(self, frame: Frame | None = None) -> Cells:
        """What each row of x_v sees of an image with this Frame (None: of the model's own size)."""
        frame = frame or self._own
        views = self.views_of(frame.width, frame.height)
        whole = np.array([[0.0, 0.0, frame.width, frame.height]])
        boxes: list[NDArray[np.float64]] = []
        order: list[NDArray[np.int64]] = []
        for view in views.frames:
            seen, grid = _tiled(view, self.patch())
            index = self.raster(*grid)
            before_it = sum(len(ranks) for ranks in order)
            order.append(np.concatenate([np.arange(self.leading), self.leading + index]) + before_it)
            boxes += [np.repeat(whole, self.leading, axis=0), seen.cells(*grid)[index]]
        return Cells(np.concatenate(boxes), np.concatenate(order))

    def image_tokens(self, frame: Frame | None = None) -> ImageTokens:
        """See FrozenVLM."""
        frame = frame or self._own
        return self._tokens(frame.width, frame.height)

    def mixing(self) -> Mixing:
        """See FrozenVLM."""
        return Mixing(self.mixers()) if self.latents else super().mixing()

    # Inside.

    @cached_property
    def _replay(self) -> Replay:
        others = [] if self.others_path is None else list(self.model.get_submodule(self.others_path).children())
        receivers = [*((module, None) for module in others), (self.connector, self.argument)]
        return Replay(list(self.model.get_submodule(self.blocks_path).children()), receivers)

    @cached_property
    def _lead(self) -> str:
        """The prompt with the image, up to the answer."""
        if not getattr(self.processor, "chat_template", None):
            return self.lead
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
        made = str(self.processor.apply_chat_template(said, add_generation_prompt=True))
        first = self.tokenizer.bos_token
        twice = first is not None and self.tokenizer.bos_token_id in self.tokenizer("").input_ids
        return made.removeprefix(first) if twice else made  # the tokenizer begins every text with it

    def _seams(self) -> Seams:
        return Seams.of_decoder(
            self.decoder(),
            self.model.get_input_embeddings(),
            self.connector,
            argument=self.argument,
            projection=self.model.get_submodule(self.projection_path) if self.projection_path else None,
            patches=self.model.get_submodule(self.patches_path),
        )

    @property
    def closing(self) -> str:
        """See FrozenVLM."""
        return self._lead.partition(QUESTION)[2]

    @cached_property
    def _opening(self) -> str:
        """The prompt up to a user's words."""
        return self._lead.partition(QUESTION)[0] if self.opening is None else self.opening

    def _blank(self, width: int, height: int, bare: bool = False) -> dict[str, Tensor]:
        """The inputs for an image of this size whose features are known: its pixels do not matter, and are not kept.

        They are 1: Idefics3 takes a picture of zeros for none.
        """
        made = self.call(self._opening if bare else self._lead, Image.new("RGB", (width, height)))
        return {name: x.new_ones(()).expand(x.shape) if x.is_floating_point() else x for name, x in made.items()}

    def _followed(self, inputs: Mapping[str, Tensor], text: Sequence[int]) -> dict[str, Tensor]:
        """Inputs on the model's device with token ids of text behind each row."""
        ids = torch.tensor([text], dtype=torch.long, device=self.device).expand(len(inputs["input_ids"]), -1)
        more = dict.fromkeys(PER_TOKEN, torch.zeros_like(ids))
        more |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "image_attention_mask" in inputs:
            more["image_attention_mask"] = inputs["image_attention_mask"][:, -1:].expand(-1, len(text), -1)
        return {name: torch.cat([x, more[name]], dim=1) if name in more else x for name, x in inputs.items()}

    def _behind(self, before: Prefix, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """What makes rows of inputs follow the one row of a prefix. Raises InputError for a model of one image."""
        self.check_interleaves()
        mask = inputs["attention_mask"]
        past = before.select([0] * len(mask))
        return {
            "past_key_values": past.cache,
            "attention_mask": torch.cat([mask.new_ones(len(mask), past.length), mask], dim=1),
        }

    def _stack(self, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        lengths = {one["input_ids"].shape[1] for one in inputs}
        if len(lengths) > 1:
            raise InputError(f"Images of one batch must fill as many tokens of {self.name}; these fill {lengths}.")
        return {key: torch.cat([one[key] for one in inputs]) for key in inputs[0]}

    def _on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        floats = {key: value.to(self.dtype) for key, value in inputs.items() if value.is_floating_point()}
        return {key: value.to(self.device) for key, value in {**inputs, **floats}.items()}

    def _starting(self, count: int) -> dict[str, Tensor]:
        """What an encoder-decoder's answer starts from."""
        if not self.model.config.is_encoder_decoder:
            return {}
        start = self.model.config.text_config.decoder_start_token_id
        return {"decoder_input_ids": torch.full((count, 1), start, device=self.device)}

    def _head(self, hidden: Tensor) -> Tensor:
        head: nn.Module = self.model.get_output_embeddings()
        logits: Tensor = head(hidden.to(next(head.parameters()).device))
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _find_tokens(self, width: int, height: int) -> ImageTokens:
        views, frame = self.views_of(width, height), self.frame_of(width, height)
        if self.latents:
            return ImageTokens.latent(self.latent_positions(), *_tiled(frame, self.patch()))
        size, told = np.array([width, height, width, height]), []
        for i, view in enumerate(views.frames):
            seen, grid = _tiled(view, self.token())
            boxes = seen.cells(*grid)[self.token_raster(*grid)]
            told.append(np.insert(boxes / size, 4, i == views.whole, axis=1))
        positions, arrived = self._arrivals(width, height, lambda _: np.concatenate(told))
        seen, grid = _tiled(frame, self.token())
        return ImageTokens(positions, arrived[:, :4] * size, arrived[:, 4] > 0.5, grid, seen)

    def _arrivals(
        self, width: int, height: int, told: Callable[[int], NDArray[np.float64]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        inputs = self._on_device(self._processed(width, height))
        entry = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.decoder()
        rows = len(self.cells(self.frame_of(width, height)).boxes)
        nothing = torch.zeros(1, rows, self.feature_dim * len(self._replay.receivers), dtype=self.dtype)
        with self._replay.give(nothing):  # what is seen does not matter: the encoder need not run
            return arrivals(self.seams, entry, lambda: self.model(**inputs, **self._starting(1), **self._further), told)


def _tiled(view: Frame, side: int) -> tuple[Frame, tuple[int, int]]:
    """What whole cells of this side, model pixels, cover of a view (a convolution sees no further), and their grid."""
    rows, columns = view.model_height // side, view.model_width // side
    return view.crop(0, 0, columns * side, rows * side), (rows, columns)

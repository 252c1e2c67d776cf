"""Seams: the places in a frozen model where a method inserts or reads, as hooks that undo themselves.

    features          float[*, N, D_v]  x_v, on its way into the connector
    connector_tokens  float[*, M, D_t]  the connector's output, on its way into the language model
    encoder_tokens    float[*, N', D]   the vision encoder's embedded patches (and CLS), before its first block
    prompt_tokens     float[B, L, D_t]  the embedded text; places of image tokens are not filled yet
    hidden            float[B, S, D_t]  the output of a block of the language model
    attention         float[B, H, K]    read only: the last token's attention in a block of the language model

A batch dimension written * is whatever the family has there: images, tiles, or none.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wherein.vlm.attention import last_row

Insert = Callable[..., Tensor | None]  # None: only read


@dataclass(frozen=True)
class Seams:
    """The modules of one model that own its seams; one that is None or empty is not offered.

    connector: receives x_v as its first argument, or by the name `argument` · projection: gives the connector's output,
    where that is another module · patches: embeds the encoder's patches · words: embeds text · layers: the language
    model's blocks · attentions: in each block, the attention whose keys are the image (and the text) · decoder: the
    model of these, whose attention function can be switched · lock: to be held while something is.
    """

    connector: nn.Module
    argument: str | None = None
    projection: nn.Module | None = None
    patches: nn.Module | None = None
    words: nn.Module | None = None
    layers: Sequence[nn.Module] = ()
    attentions: Sequence[nn.Module] = ()
    decoder: Any = None
    lock: AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False, compare=False)

    @classmethod
    def of_decoder(cls, decoder: Any, words: nn.Module, connector: nn.Module, **others: Any) -> Seams:
        """The seams of an ordinary decoder of transformers behind a connector; `others` as in the class."""
        attentions = [layer.self_attn for layer in decoder.layers]
        return cls(connector, words=words, layers=decoder.layers, attentions=attentions, decoder=decoder, **others)

    @property
    def names(self) -> tuple[str, ...]:
        """The seams this model offers."""
        offered = {
            "features": True,
            "connector_tokens": True,
            "encoder_tokens": self.patches is not None,
            "prompt_tokens": self.words is not None,
            "hidden": bool(self.layers),
            "attention": bool(self.attentions),
        }
        return tuple(name for name, there in offered.items() if there)

    @contextmanager
    def open(self, name: str, insert: Insert, layers: Sequence[int] | None = None) -> Iterator[None]:
        """Call `insert` with what passes the seam inside the block, and let what it returns pass instead (None: as is).

        A compiled model runs uncompiled inside the block.
        On exit, also on error, the model is what it was. Seams nest; the outer one inserts first. At `hidden` and
        `attention` `insert` is called with (tensor, layer) for each of `layers`, all of them where None.
        """
        with ExitStack() as stack:
            stack.enter_context(uncompiled())
            every = self.attentions if name == "attention" else self.layers
            chosen = range(len(every)) if layers is None else layers
            if name == "attention":
                stack.enter_context(last_row(self.decoder, self.attentions, insert, chosen))
            elif name == "hidden":
                for layer in chosen:
                    hook = _after(lambda x, layer=layer: insert(x, layer))
                    stack.callback(self.layers[layer].register_forward_hook(hook).remove)
            elif name == "features":
                hook = before(insert, self.argument)
                stack.callback(self.connector.register_forward_pre_hook(hook, with_kwargs=True).remove)
            else:
                owner = {
                    "connector_tokens": self.projection or self.connector,
                    "encoder_tokens": self.patches,
                    "prompt_tokens": self.words,
                }[name]
                assert owner is not None
                stack.callback(owner.register_forward_hook(_after(insert)).remove)
            yield

    @contextmanager
    def until(self, layer: int) -> Iterator[None]:
        """Inside the block, blocks behind the one of `attentions[layer]` let their input through.

        For what is read off attention up to there: no state behind it means anything, and the cache has none.
        """
        stop = _Stop()
        with ExitStack() as stack:
            stack.enter_context(uncompiled())
            stack.callback(self.attentions[layer].register_forward_hook(stop.reached).remove)
            stack.callback(self.layers[0].register_forward_pre_hook(stop.begins).remove)
            for block in self.layers:
                stack.enter_context(stop.guards(block))
            yield


class _Stop:
    """Whether a forward pass came to the attention behind which nothing is needed, and what the block there gave."""

    def __init__(self) -> None:
        self.past = False
        self.given: Any = None

    def begins(self, *_: Any) -> None:
        """A forward pass enters its first block."""
        self.past = False

    def reached(self, *_: Any) -> None:
        """The attention has run; its block goes on to its end."""
        self.past = True

    @contextmanager
    def guards(self, block: nn.Module) -> Iterator[None]:
        """Run the block only before the stop; behind it, return its input in the form in which blocks return."""
        run = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            """The block, or what is in its place."""
            if not self.past:
                self.given = run(*args, **kwargs)
                return self.given
            x = args[0] if args else kwargs["hidden_states"]
            return (x, *self.given[1:]) if isinstance(self.given, tuple) else x

        with replaced(block, forward):
            yield


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Another forward inside the block; one of the module's own (accelerate's) comes back."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.__dict__["forward"] = own


def uncompiled() -> AbstractContextManager[Any]:
    """Inside the block nothing runs compiled: a compiled forward pass does not see hooks that come after it."""
    if "torch._dynamo" not in sys.modules:  # then nothing was compiled, and its import would take a second
        return nullcontext()
    eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return eager


def before(insert: Insert, argument: str | None) -> Callable[..., Any]:
    """A pre-hook that passes a module's first argument, or the one called `argument`, through `insert`."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """What the module is called with instead."""
        name = argument if args == () or argument in kwargs else None
        given = args[0] if name is None else kwargs[name]
        made = insert(given)
        if made is None:
            return args, kwargs
        return ((made, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: made})

    return hook


def _after(insert: Insert) -> Callable[..., Any]:
    """A forward hook that passes a module's output, or the first of several, through `insert`."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        """What the module returns instead."""
        several = isinstance(output, tuple)
        made = insert(output[0] if several else output)
        return output if made is None else (made, *output[1:]) if several else made

    return hook

"""The connector of the default VLM: patch features of the vision encoder -> word-like tokens of the language model.

Every cell is read as words. It chooses among the encoder's own 1,000 ImageNet classes, further names and "nothing": a
class starts from the logit that the encoder's classifier gives it, a name from NAME, and a small network adds to both
what else it has learnt to recognise. Beside it stands what the image as a whole is likely to show, as strongly as the
cell takes part in it (class activation): a cell alone mistakes much that the whole image does not. The token is the
mixture of both, in the language model's own word embeddings, so it means what its cell shows. A linear path of its own
carries what no name says: colour, style - and, later, whatever a method inserts into the features. It is apart from the
choice, so that what goes through it does not change the words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

WIDTH_HIDDEN = 768
STYLE = 0.001  # deviation of the style path's first weights: a token's share of it then has about half a word's norm
NOTHING = 7.0  # logit of "nothing": a cell's class logits deviate by 2, its largest is 8 on average
DOUBT = 2.0  # temperature of the image's own class probabilities
WHOLE = 3.5  # norm, at the strongest cell, of what the whole image shows; a word's is about 2
NAME = -2.0  # logit of a name that is no class, before anything is learnt: all of them together do not matter


class Connector(nn.Module):
    """float[B, N, D_v] patch features -> float[B, N, D_t] tokens (N unchanged, raster order).

    `classifier` (the encoder's, D_v -> C classes), `class_words` float[C, D_t] and `names` float[V, D_t] (embeddings of
    the classes and of further names, see `embed`) are parts of other modules: buffers that are not saved.
    """

    classifier_weight: Tensor
    classifier_bias: Tensor
    words: Tensor
    blank: Tensor

    def __init__(self, classifier: nn.Linear, class_words: Tensor, names: Tensor) -> None:
        super().__init__()
        features, width = classifier.in_features, names.shape[1]
        words = torch.cat([class_words, names])
        for key, value in (
            ("classifier_weight", classifier.weight),
            ("classifier_bias", classifier.bias),
            ("blank", words.mean(0)),
            ("words", words - words.mean(0)),
        ):
            self.register_buffer(key, value.detach().clone(), persistent=False)
        self.norm = nn.LayerNorm(features)
        self.inner = nn.Linear(features, WIDTH_HIDDEN)
        self.outer = nn.Linear(WIDTH_HIDDEN, width)
        self.skip = nn.Linear(features, width, bias=False)
        self.empty = nn.Linear(features, 1)
        self.scale = nn.Parameter(torch.tensor(2.0))
        nn.init.zeros_(self.outer.weight)  # it starts with what the encoder says, and learns what to add
        nn.init.zeros_(self.outer.bias)
        nn.init.zeros_(self.skip.weight)
        nn.init.zeros_(self.empty.weight)
        nn.init.zeros_(self.empty.bias)
        self.style = nn.Linear(features, width, bias=False)
        nn.init.normal_(self.style.weight, std=STYLE)

    def _logits(self, x_v: Tensor) -> Tensor:
        return nn.functional.linear(x_v, self.classifier_weight, self.classifier_bias)

    def seen(self, x_v: Tensor) -> Tensor:
        """The encoder's own logits float[B, N, C + V + 1] of each class, name (which it has none for) and nothing."""
        logits = self._logits(x_v)
        names = logits.new_full((*logits.shape[:-1], len(self.words) - logits.shape[-1]), NAME)
        return torch.cat([logits, names, logits.new_full((*logits.shape[:-1], 1), NOTHING)], dim=-1)

    def choices(self, x_v: Tensor) -> Tensor:
        """Log-probabilities float32[B, N, C + V + 1] of each class, of each name and, last, of nothing."""
        x = self.norm(x_v)
        learnt = (self.outer(nn.functional.gelu(self.inner(x))) + self.skip(x)) @ self.words.T
        added = torch.cat([self.scale * learnt, self.empty(x)], dim=-1)
        return (self.seen(x_v) + added).float().log_softmax(-1)

    def likely(self, x_v: Tensor) -> Tensor:
        """How much each cell looks like what the image as a whole is likely to show: float[B, N, C].

        The class activation (Zhou et al., 2016) of each class, weighted with the class's probability for the whole
        image, on a scale at which the strongest cell's words have the norm WHOLE.
        """
        logits = self._logits(x_v)
        activation = (logits.mean(1, keepdim=True) / DOUBT).softmax(-1) * nn.functional.relu(logits)
        strongest = (activation @ self.words[: logits.shape[-1]]).norm(dim=-1).amax(1)
        share: Tensor = activation * (WHOLE / strongest.clamp(min=1e-6))[:, None, None]
        return share

    def weights(self, x_v: Tensor) -> Tensor:
        """The weight float[B, N, C + V] of each word in each token: what the cell chooses, and what the image shows."""
        chosen, likely = self.choices(x_v)[..., :-1].exp().to(x_v.dtype), self.likely(x_v)
        return chosen + nn.functional.pad(likely, (0, chosen.shape[-1] - likely.shape[-1]))

    def forward(self, x_v: Tensor) -> Tensor:
        """Patch features float[B, N, D_v] -> tokens float[B, N, D_t]."""
        style: Tensor = self.style(self.norm(x_v))
        return self.blank + self.weights(x_v) @ self.words + style


def embed(texts: Sequence[str], encode: Callable[[str], Sequence[int]], table: Tensor) -> Tensor:
    """Word embeddings float32[len(texts), D_t]: the mean over a name's tokens in `table` float[*, D_t]."""
    return torch.stack([table[list(encode(f" {text}"))].float().mean(0) for text in texts])

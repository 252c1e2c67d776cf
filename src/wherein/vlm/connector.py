"""The connector of the default VLM: patch features of the vision encoder -> word-like tokens of the language model.

Every cell is read as words. A small network, which also sees the encoder's own 1,000 ImageNet logits, gives each cell a
query in the language model's embedding space; a softmax over a vocabulary of names (and "nothing") turns it into a
mixture of their word embeddings. So a token means what its cell shows, in the language model's own words. A linear path
of its own carries what no name says: colour, style - and, later, whatever a method inserts into the features. It is
apart from the query, so that what goes through it does not change the words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

WIDTH_HIDDEN = 768
STYLE = 0.001  # deviation of the style path's first weights: a token's share of it then has about half a word's norm


class Connector(nn.Module):
    """float[B, N, D_v] patch features -> float[B, N, D_t] tokens (N unchanged, raster order).

    `classifier` (the encoder's, D_v -> C classes), `class_words` float[C, D_t] and `names` float[V, D_t] (embeddings of
    the classes' names and of the vocabulary, see `embed`) are parts of other modules: buffers that are not saved.
    """

    classifier_weight: Tensor
    classifier_bias: Tensor
    class_words: Tensor
    names: Tensor
    blank: Tensor

    def __init__(self, classifier: nn.Linear, class_words: Tensor, names: Tensor) -> None:
        super().__init__()
        features, width = classifier.in_features, names.shape[1]
        for key, value in (
            ("classifier_weight", classifier.weight),
            ("classifier_bias", classifier.bias),
            ("class_words", class_words),
            ("blank", names.mean(0)),
            ("names", names - names.mean(0)),
        ):
            self.register_buffer(key, value.detach().clone(), persistent=False)
        self.log_temperature = nn.Parameter(torch.tensor(0.7))
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.norm = nn.LayerNorm(features)
        self.inner = nn.Linear(features, WIDTH_HIDDEN)
        self.outer = nn.Linear(WIDTH_HIDDEN, width)
        self.skip = nn.Linear(features, width, bias=False)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.nothing = nn.Parameter(torch.tensor(4.0))
        nn.init.zeros_(self.outer.weight)  # noise here would drown the word path for hundreds of steps
        nn.init.zeros_(self.outer.bias)
        nn.init.zeros_(self.skip.weight)
        self.style = nn.Linear(features, width, bias=False)
        nn.init.normal_(self.style.weight, std=STYLE)

    def query(self, x_v: Tensor) -> Tensor:
        """What each cell asks the vocabulary: float[B, N, D_t], relative to the mean name."""
        logits = nn.functional.linear(x_v, self.classifier_weight, self.classifier_bias)
        mixture = torch.softmax(logits / self.log_temperature.exp(), dim=-1) - 1 / logits.shape[-1]
        x = self.norm(x_v)
        free: Tensor = self.outer(nn.functional.gelu(self.inner(x))) + self.skip(x)
        return self.gain * (mixture @ self.class_words) + free

    def choices(self, query: Tensor) -> Tensor:
        """Log-probabilities float32[B, N, V + 1] of each name and, last, of nothing, from `query`."""
        logits = self.scale * (query @ self.names.T)
        return torch.cat([logits, self.nothing.expand(*logits.shape[:-1], 1)], dim=-1).float().log_softmax(-1)

    def forward(self, x_v: Tensor) -> Tensor:
        """Patch features float[B, N, D_v] -> tokens float[B, N, D_t]."""
        query = self.query(x_v)
        words = self.choices(query)[..., :-1].exp().to(query.dtype) @ self.names
        style: Tensor = self.style(self.norm(x_v))
        return self.blank + words + style


def embed(texts: Sequence[str], encode: Callable[[str], Sequence[int]], table: Tensor) -> Tensor:
    """Word embeddings float32[len(texts), D_t]: the mean over a name's tokens in `table` float[*, D_t]."""
    return torch.stack([table[list(encode(f" {text}"))].float().mean(0) for text in texts])

"""The connector of the default VLM: patch features of the vision encoder -> word-like tokens of the language model.

Every cell is read as words, in three readings that are added up. The first is what the encoder sees: the class
activation of its own 1,000 ImageNet classes (Zhou et al., 2016), each weighted with how likely the image as a whole
shows it. The second is the same of all that the connector has learnt to see: to the evidence of each class, and of
further names, a small network adds what it recognises. The third, not as loud, is what the cell by itself is sure of.
A cell alone mistakes much that the whole image does not, and on photographs more than on composites; but the whole
image drowns a small thing among others. The encoder's reading stands by itself since it holds on photographs, of which
the connector has seen few. A token is the mixture of these words, in the language model's own word embeddings, so it
means what its cell shows. A linear path of its own carries what no name says: colour, style - and, later, whatever a
method inserts into the features. It is apart from the words, so that what goes through it does not change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

WIDTH_HIDDEN = 768
STYLE = 0.001  # deviation of the style path's first weights: a token's share of it then has about half a word's norm
NOTHING = 7.0  # logit of "nothing": a cell's class logits deviate by 2, its largest is 8 on average
DOUBT = 2.0  # temperature of what the image is likely to show
SHARE = 0.1  # of the cells that speak for what is learnt: those with most evidence of it; all do for a class
LOUD = 2.5  # norm, at its strongest cell, of what an image's reading says; a single word's is about 2
ALONE = 0.75  # weight of a word that a cell by itself is sure of
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

    def seen(self, x_v: Tensor) -> Tensor:
        """The encoder's own evidence float[B, N, C + V + 1]: of classes, of names (it has none) and of nothing."""
        logits = nn.functional.linear(x_v, self.classifier_weight, self.classifier_bias)
        names = logits.new_full((*logits.shape[:-1], len(self.words) - logits.shape[-1]), NAME)
        return torch.cat([logits, names, logits.new_full((*logits.shape[:-1], 1), NOTHING)], dim=-1)

    def evidence(self, x_v: Tensor) -> Tensor:
        """Logits float[B, N, C + V + 1] of each class, of each name and, last, of nothing: seen, and learnt."""
        return self.seen(x_v) + self.learnt(x_v)

    def learnt(self, x_v: Tensor) -> Tensor:
        """What is added to the encoder's own evidence, float[B, N, C + V + 1]."""
        x = self.norm(x_v)
        likeness = (self.outer(nn.functional.gelu(self.inner(x))) + self.skip(x)) @ self.words.T
        return torch.cat([self.scale * likeness, self.empty(x)], dim=-1)

    def weights(self, x_v: Tensor) -> Tensor:
        """The weight float[B, N, C + V] of each word in each token: as the encoder sees it, as it is learnt, alone."""
        seen = self.seen(x_v)
        evidence = seen + self.learnt(x_v)
        alone = evidence.softmax(-1, torch.float32).to(evidence.dtype)[..., :-1]
        return self._aloud(seen[..., :-1], 1.0) + self._aloud(evidence[..., :-1], SHARE) + ALONE * alone

    def _aloud(self, evidence: Tensor, share: float) -> Tensor:
        """Class activation float[B, N, C + V], on a scale at which the strongest cell's words have the norm LOUD."""
        activation = likely(evidence, share).exp()[:, None].to(evidence.dtype) * nn.functional.relu(evidence)
        strongest = (activation @ self.words).norm(dim=-1).amax(1)
        scaled: Tensor = activation * (LOUD / strongest.clamp(min=1e-6))[:, None, None]
        return scaled

    def forward(self, x_v: Tensor) -> Tensor:
        """Patch features float[B, N, D_v] -> tokens float[B, N, D_t]."""
        return self.say(x_v, self.weights(x_v))

    def say(self, x_v: Tensor, weights: Tensor) -> Tensor:
        """Tokens float[B, N, D_t]: words with these weights float[B, N, C + V], and the style of float[B, N, D_v]."""
        style: Tensor = self.style(self.norm(x_v))
        return self.blank + weights @ self.words + style


def likely(evidence: Tensor, share: float) -> Tensor:
    """Log-probabilities float32[B, W] of what an image shows, by the evidence float[B, N, W] in those cells, `share` of
    them, that have most of it."""
    best = max(1, round(share * evidence.shape[1]))
    heard = evidence.float() if share == 1 else evidence.float().topk(best, dim=1).values
    return (heard.mean(1) / DOUBT).log_softmax(-1)


def embed(words: Sequence[Sequence[int]], table: Tensor) -> Tensor:
    """Word embeddings float32[len(words), D_t] on the CPU: the means over their tokens in `table` float[*, D_t]."""
    tokens = table[[token for word in words for token in word]].float().cpu()
    starts = torch.tensor([0, *accumulate(map(len, words[:-1]))])
    return nn.functional.embedding_bag(torch.arange(len(tokens)), tokens, starts, mode="mean")

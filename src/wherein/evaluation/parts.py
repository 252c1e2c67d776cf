"""What a paper's table is made of: rows in parts, run one after another, and who answers in each, made when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from wherein.evaluation import papers
from wherein.evaluation.protocols import Grounder
from wherein.methods.heads.method import Heads
from wherein.methods.in_context import InContext, Random
from wherein.methods.insert import Inserted
from wherein.methods.text import Text
from wherein.segment import Refined

BUILT_IN = "built in"  # where an adapter comes from that no one named


@dataclass(frozen=True)
class Part:
    """Rows that are run together: their names, and who answers in each, once or in several runs.

    `make` raises InputError or AdapterError where the model cannot have the row, or has no adapter for it. `adapters`
    says where those of rows that load one come from.
    """

    rows: tuple[str, ...]
    make: Callable[[], Sequence[Sequence[Grounder]]]
    adapters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of a paper: its title, its parts, the published values, and the figures it prints.

    The first of the figures, miou, p@... or ciou, is what the table is about: intervals, paired tests and the plot are
    of it. `besides`: what the paper prints of rows that are not run.
    """

    title: str
    parts: tuple[Part, ...]
    published: papers.Published
    figures: tuple[str, ...]
    besides: papers.Published = field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        """The names of all rows."""
        return [row for part in self.parts for row in part.rows]


def prompt_of(answers: Any) -> str | None:
    """The text behind the image that a row asks its model with; None of a row that does not ask in words."""
    method = getattr(answers, "method", answers)
    if isinstance(method, Heads):
        return method.config.prompt
    if isinstance(method, Text) and method.vlm.native_prompt:
        return method.vlm.native_prompt
    asks = isinstance(method, (Inserted, Text, InContext))
    return method.vlm.shared_prompt + method.vlm.locate_prompt if asks else None


def identity(answers: Any) -> str:
    """What tells two answerers of one name apart: settings and weights, of a method that has some."""
    digest = sha256()
    method = getattr(answers, "method", answers)
    digest.update(str(getattr(method, "config", "")).encode())
    insert = getattr(method, "insert", None)
    for name, tensor in sorted({} if insert is None else insert.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    digest.update(str(getattr(answers, "facts", "")).encode())
    if isinstance(answers, Refined):
        digest.update(answers.segmenter.name.encode())
    if isinstance(method, Random):
        digest.update(method.boxes.tobytes() + str(method.seed).encode())
    for example in getattr(method, "examples", ()):
        digest.update(example.image.tobytes() + example.phrase.encode())
    return digest.hexdigest()[:16]

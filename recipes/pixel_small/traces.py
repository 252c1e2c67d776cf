"""What the places of narratives' words are worth to phrases: models that learnt them beside models that did not.

A pair is two models of one seed, trained by `train.py` with `--sparse` and without; see README.md. All are asked for
the same phrases. The difference of a pair is that of its means; intervals and tests are of the pairs' mean difference,
over images and over pairs, both drawn with replacement. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare import asked
from composed import stores
from numpy.typing import NDArray

from wherein.errors import InputError, WhereinError
from wherein.evaluation import bootstrap
from wherein.methods import create
from wherein.vlm import load_vlm


def worth(images: Sequence[int], dense: NDArray[np.float64], sparse: NDArray[np.float64]) -> dict[str, Any]:
    """Each pair's mean with traces and without, and the mean difference with interval and p-value, from the values
    float64[pairs, phrases] of either."""
    sums = bootstrap.resampled([*(dense - sparse), np.ones(len(images))], images, seed=0)
    draws, pairs = sums[:-1] / sums[-1], len(dense)
    drawn = np.random.default_rng(1).integers(pairs, size=draws.shape)
    compared = bootstrap.comparison(
        float((dense - sparse).mean()), np.take_along_axis(draws, drawn, axis=0).mean(axis=0)
    )
    return {
        "dense": dense.mean(axis=1).tolist(),
        "sparse": sparse.mean(axis=1).tolist(),
        "difference": compared.difference,
        "ci95": list(compared.interval),
        "p": compared.p,
    }


def told(row: dict[str, Any]) -> str:
    """A row of `worth` to be read."""
    pairs = ", ".join(f"{a:.3f} / {b:.3f}" for a, b in zip(row["dense"], row["sparse"], strict=True))
    low, high = row["ci95"]
    return f"{pairs}: {row['difference']:+.3f} ({low:+.3f} to {high:+.3f}), p {row['p']:.4f}"


def main() -> None:
    """Ask all models, print a table, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense", type=Path, nargs="+", required=True, help="adapters that learnt the words' places")
    parser.add_argument("--sparse", type=Path, nargs="+", required=True, help="those that did not, in the same order")
    parser.add_argument("--objects", type=Path, help="folder of further cut-outs")
    parser.add_argument("--backgrounds", type=Path, help="folder of background photographs")
    parser.add_argument("--cache", type=Path, required=True, help="folder of encoded composites")
    given = parser.parse_args()
    if (pairs := len(given.dense)) != len(given.sparse):
        raise InputError(f"{pairs} adapters with traces and {len(given.sparse)} without make no pairs.")
    vlm = load_vlm()
    kinds = stores(vlm, given.cache, 0, given.objects, given.backgrounds)
    methods = [create("pixel", vlm, adapter) for adapter in (*given.dense, *given.sparse)]
    figures = dict[str, dict[str, Any]]()
    for kind, store in (("held out", kinds.held_out), ("known", kinds.known)):
        images, ious = asked(store.build(), methods, vlm.size[0])
        for name, values in (("mIoU", ious), ("P@0.5", (ious > 0.5).astype(np.float64))):
            row = figures[f"{kind} {name}"] = worth(images, values[:pairs], values[pairs:])
            print(f"{kind:8} {name:5} {told(row)}, {len(images)} phrases")
    print(json.dumps({"pairs": pairs, **figures}))


if __name__ == "__main__":
    try:
        main()
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None

"""The figures of `train.py` on labelled photographs, data set by data set; the last line of stdout is JSON.

DATA is a data set as `wherein eval` reads it. Of its images with at most three objects, as composites have, every
object is asked about that a phrase tells apart, and the phrases are made as those of composites are: "a dog on the
left". What the figures mean, and what stands beside each, is said in `wherein.training.pixel.measure`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from composed import SEED

from wherein.data import Sample
from wherein.errors import WhereinError
from wherein.evaluation import select
from wherein.methods import create
from wherein.training.pixel import measure
from wherein.training.store import FeatureStore, Labelled
from wherein.vlm import load_vlm


def labelled(sample: Sample) -> Labelled:
    """A photograph with its objects by name."""
    return Labelled(sample.boxed(), tuple((thing.phrase, thing.box) for thing in sample.objects if thing.has_area))


def main() -> None:
    """Encode, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA")
    parser.add_argument("--adapter", help="folder that train.py wrote; default: the one in the package")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto takes the fastest there is")
    given = parser.parse_args()
    vlm = load_vlm("default", given.device)
    reader, found = create("pixel", vlm, given.adapter).reader, {}
    for folder in given.data:
        samples = [sample for sample in select("pin", folder) if any(thing.has_area for thing in sample.objects)]
        with TemporaryDirectory() as cache:  # photographs of one's own leave nothing behind
            store = FeatureStore(Path(cache), vlm, lambda i, own=samples: labelled(own[i]), len(samples), {}).build()
            found[str(folder)] = {"images": len(samples), **measure(reader, store, len(samples), SEED)}
        print(folder, *(f"{name} {value:.3f}" for name, value in found[str(folder)].items()))
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        main()
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None

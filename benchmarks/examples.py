"""Does the first thing a newcomer does give a right box? IoU on the five example photographs; the last line is JSON."""

from __future__ import annotations

import argparse
import json
from importlib.resources import files

import numpy as np

from wherein import Locator
from wherein.geometry import iou


def main() -> None:
    """Ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="auto")
    locator = Locator(method=parser.parse_args().method)
    folder = files("wherein") / "examples"
    found = {}
    for name, truth in json.loads((folder / "truth.json").read_text()).items():
        (grounding,) = locator.locate(str(folder / name), truth["phrase"]).groundings
        best = iou(grounding.boxes, np.array([truth["box"]])).max(initial=0.0)
        found[name] = round(float(best), 3)
        print(f"{name:18} {truth['phrase']:14} IoU {best:.2f}")
    print(json.dumps({"method": locator.method.name, "iou": found, "right": sum(v >= 0.5 for v in found.values())}))


if __name__ == "__main__":
    main()

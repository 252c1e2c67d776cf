"""Figures of a pixel-aligned adapter on labelled photographs, beside the constant box; the last line of stdout is JSON.

Every phrase of an image is asked for; what the figures mean is said in `wherein.evaluation.summarise`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.progress import track

from wherein.errors import WhereinError
from wherein.evaluation import Journal, run, select, summarise
from wherein.methods.centre import Centre
from wherein.methods.pixel.method import Pixel
from wherein.vlm import load_vlm


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder that train.py wrote")
    parser.add_argument("--data", type=Path, required=True, help="annotations in COCO format")
    parser.add_argument("--images", type=Path, required=True, help="the folder of their images")
    parser.add_argument("--protocol", default="pin", help="pin: images of one to three objects; phrases: all")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto takes the fastest there is")
    given = parser.parse_args()
    vlm = load_vlm("default", given.device)
    methods = [Centre(vlm), Pixel(vlm, given.adapter)]
    samples = select(given.protocol, given.data, given.images)
    asked = run(track(samples, "images", console=Console(stderr=True)), methods, Journal(None, {}))
    outcomes = [outcome for image in asked for outcome in image]
    print(json.dumps(summarise(outcomes, protocol=given.protocol, model=vlm.name)))


if __name__ == "__main__":
    try:
        main()
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None

"""How fast are annotations read? The last line of stdout is JSON.

A COCO file of made-up objects is read by a process of its own, as `wherein eval` reads it: every sample is taken, no
image is opened. Beside it, `json.loads` of the same file: the floor.

Objects have a polygon of 24 corners, which makes an annotation some 500 bytes long, about as in COCO; `--boxes-only`
leaves the polygons out.

seconds, floor_seconds: of processor time, median over the runs, so that a busy machine adds little · peak_mb,
floor_peak_mb: the most memory the process ever held, Python and numpy included · start_mb: what it held before it
read · file_mb: size of the file.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

WIDTH, HEIGHT, CATEGORIES = 640, 480, 80


def write(path: Path, annotations: int, images: int, corners: int) -> dict[str, float]:
    """A COCO file of objects at random places, each with a polygon of so many corners, or none."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, [WIDTH - 50, HEIGHT - 50], (annotations, 2)).round(2)
    objects = [
        {
            "id": i,
            "image_id": int(image),
            "category_id": int(category),
            "bbox": [*low[i].tolist(), *size],
            "area": size[0] * size[1],
            "iscrowd": 0,
            "segmentation": [rng.uniform(low[i], low[i] + size, (corners, 2)).round(2).ravel().tolist()]
            if corners
            else [],
        }
        for i, (image, category, size) in enumerate(
            zip(
                rng.integers(images, size=annotations),
                rng.integers(CATEGORIES, size=annotations),
                rng.uniform(5, 50, (annotations, 2)).round(2).tolist(),
                strict=True,
            )
        )
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(images)],
        "categories": [{"id": i, "name": f"thing {i}"} for i in range(CATEGORIES)],
        "annotations": objects,
    }
    return {"file_mb": path.write_text(json.dumps(content)) / 2**20}


def read(path: Path) -> dict[str, float]:
    """Read the file as an evaluation does."""
    from wherein.data import open_dataset

    start, began = peak(), time.process_time()
    objects = sum(len(sample.objects) for sample in open_dataset(path, path.parent).samples())
    return {"seconds": time.process_time() - began, "peak_mb": peak(), "start_mb": start, "objects": objects}


def floor(path: Path) -> dict[str, float]:
    """Read the file as JSON only."""
    began = time.process_time()
    json.loads(path.read_text())
    return {"floor_seconds": time.process_time() - began, "floor_peak_mb": peak()}


def peak() -> float:
    """Megabytes this process held at most so far; Linux counts kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(what: str, path: Path, *options: str) -> dict[str, Any]:
    """What `write`, `read` or `floor` returns in a process of its own; it counts its starter's peak, which is small."""
    command = [sys.executable, __file__, "--run", what, "--file", str(path), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Write, read in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--corners", type=int, default=24, help="of the polygon of each object")
    parser.add_argument("--boxes-only", dest="corners", action="store_const", const=0, help="objects without polygons")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--run", choices=["write", "read", "floor"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = {name: getattr(args, name) for name in ("annotations", "images", "corners")}
    if args.run:
        print(
            json.dumps(
                write(args.file, **sizes)
                if args.run == "write"
                else {"read": read, "floor": floor}[args.run](args.file)
            )
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.json"
        written = in_a_process("write", path, *(f"--{name}={value}" for name, value in sizes.items()))
        runs = [in_a_process("read", path) | in_a_process("floor", path) for _ in range(args.times)]
    figures = {name: median(run[name] for run in runs) for name in runs[0]}
    print(json.dumps({name: round(value, 3) for name, value in {**figures, **written, **sizes}.items()}))


if __name__ == "__main__":
    main()

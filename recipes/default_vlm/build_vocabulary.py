"""Write the names in which the connector reads a cell: those of the bank, of further cut-outs and of the classes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from wherein.journal import write_text
from wherein.synth import ObjectBank
from wherein.vlm.default import class_names

OUT = Path(__file__).resolve().parents[2] / "src/wherein/vlm/vocabulary.json"


def main() -> None:
    """Collect, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", required=True, help="folder of further cut-outs")
    bank = ObjectBank.load() + ObjectBank.from_folder(parser.parse_args().extra)
    names = sorted({*bank.names, *(text for pair in class_names() for text in pair)})
    write_text(OUT, json.dumps(names, indent=0))


if __name__ == "__main__":
    main()

"""Reorder makemore's names so that `--data.split-seed 42` puts makemore's own 1,000 test names last.

    pip install -e ".[bench]" && python benchmarks/makemore_split.py names.txt makemore_split.txt
    python train.py configs/names_gru.py --data.path makemore_split.txt --data.split 0.968783 0.031217 0

makemore permutes its names by torch.randperm after torch.manual_seed(3407) and tests on the last 1,000.
"""

import argparse
import random
from pathlib import Path

import torch


def main() -> None:
    """Read the names and write them in the new order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="makemore's names")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    names = args.data.read_text("utf-8").split()
    torch.manual_seed(3407)
    wanted = [names[i] for i in torch.randperm(len(names)).tolist()]
    place_of = list(range(len(names)))
    random.Random(42).shuffle(place_of)
    lines = [""] * len(names)
    for name, place in zip(wanted, place_of, strict=True):
        lines[place] = name
    args.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()

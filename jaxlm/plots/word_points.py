"""Words as points in the plane, in a file between what places them and what draws them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def save_points(words: Sequence[str], xy_N2: np.ndarray, path: Path) -> None:
    """Write words.npz."""
    np.savez(path, words=np.array(words), xy=xy_N2)


def load_points(path: Path) -> tuple[list[str], np.ndarray]:
    """Read words.npz."""
    with path.open("rb") as file, np.load(file) as arrays:
        return arrays["words"].tolist(), arrays["xy"]

"""words.npz: the words of a run as points in the plane, saved when it finishes and read to draw their map."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def save_points(words: Sequence[str], xy_N2: np.ndarray, path: Path) -> None:
    """Write words and their points xy_N2 to an .npz file."""
    np.savez(path, words=np.array(words), xy=xy_N2)


def load_points(path: Path) -> tuple[list[str], np.ndarray]:
    """Read words and their points xy_N2 from an .npz file."""
    with path.open("rb") as file, np.load(file) as arrays:
        return arrays["words"].tolist(), arrays["xy"]

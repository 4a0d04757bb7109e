"""Vectors of words, read from a file."""

from pathlib import Path

import numpy as np

from jaxlm.errors import UserError, near_path


def read_vectors(path: Path, setting: str) -> tuple[list[str], np.ndarray]:
    """The words of an .npz file's array `words` and the rows of its array `vectors`, (V, E) float32.

    Raises UserError naming the setting where the file does not have them.
    """
    try:
        with np.load(path) as arrays:
            words, row_VE = arrays["words"].tolist(), arrays["vectors"].astype(np.float32)
    except FileNotFoundError:
        raise UserError(f"{setting} {str(path)!r} does not exist{near_path(path)}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{setting} {str(path)!r} wants an .npz file of words and vectors: {error}") from error
    if row_VE.ndim != 2 or len(words) != len(row_VE):
        raise UserError(
            f"{setting} {str(path)!r} wants a row for each of its {len(words)} words, got shape {row_VE.shape}"
        )
    return words, row_VE

"""How new samples are: a text's nearest training line, and a run's share of copies. JAX only to draw samples."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jaxlm.config.user_code import TrustCode
from jaxlm.data.corpus import line_hash, lines_of_splits
from jaxlm.data.source import read
from jaxlm.errors import UserError, check_fields
from jaxlm.runs.directory import RunDir, read_json, write_json

SEED = 0
"""The seed of the samples that shares are taken from."""
AT_ONCE, MAX_TOKENS = 20, 200
"""Samples drawn in one call, and the tokens of one: what train.py and sample.py draw by default, so that the
program for it has been compiled already (Kneser-Ney's takes longer than a thousand samples).
"""

Seen = Literal["train", "dev+test", "new"]
"""Where a text is found in a run's data."""
Groups = dict[int, tuple[list[str], np.ndarray]]
"""Length -> the distinct lines of that length in order of their code points, and those as point_TN."""


class Nearest(NamedTuple):
    """A training line and how far from a text it is."""

    distance: int
    line: str


@dataclasses.dataclass(frozen=True)
class Shares:
    """Where a run's samples are found in its data, as shares of n."""

    n: int
    seed: int
    step: int
    """The step of the checkpoint that drew them."""
    train: float
    """Exact copies of a line of train."""
    dev_or_test: float
    """Lines of dev or test that are not in train."""
    new: float


def by_length(lines: Sequence[str]) -> Groups:
    """The distinct lines as one matrix of code points for each length, so that none is padded."""
    grouped: dict[int, list[str]] = {}
    for line in sorted(set(lines)):
        grouped.setdefault(len(line), []).append(line)
    return {
        length: (group, np.ascontiguousarray(_code_points("".join(group)).reshape(len(group), length).T))
        for length, group in grouped.items()
    }


def edit_distances(text: str, point_TN: np.ndarray) -> np.ndarray:
    """Levenshtein distance of a text to each of N lines of T characters, (N,) int32.

    D[i, j], between the first i characters of the text and the first j of a line, is the least of D[i-1, j] + 1,
    D[i-1, j-1] + (they differ) and D[i, j-1] + 1. The last is the least of D[i, k] + j - k over k < j, a running
    minimum, so that the loop runs over the text alone.
    """
    T, N = point_TN.shape
    place_S1 = np.arange(T + 1, dtype=np.int32)[:, None]  # S = T + 1
    row_SN = np.repeat(place_S1, N, axis=1)
    for point in _code_points(text):
        next_SN = row_SN + 1
        np.minimum(next_SN[1:], row_SN[:-1] + (point_TN != point), out=next_SN[1:])
        row_SN = np.minimum.accumulate(next_SN - place_S1, axis=0) + place_S1
    return row_SN[-1]


def nearest(text: str, groups: Groups) -> Nearest:
    """The line with the least edit distance to a text, of equally near ones the first in order of code points.

    Lengths are tried from the text's own outwards, until a difference in length alone is more than the best distance.
    Raises ValueError where there are no lines.
    """
    best = Nearest(math.inf, "")  # type: ignore[arg-type]
    for length in sorted(groups, key=lambda length: abs(length - len(text))):
        if abs(length - len(text)) > best.distance:
            break
        lines, point_TN = groups[length]
        distance_N = edit_distances(text, point_TN)
        n = int(distance_N.argmin())
        best = min(best, Nearest(int(distance_N[n]), lines[n]))
    if not groups:
        raise ValueError("nearest wants at least one line, got none")
    return best


def classify(run_seen: dict[str, np.ndarray], texts: Sequence[str]) -> list[Seen]:
    """Where each text is a line of the data: in train, in dev or test only, or nowhere, by the hashes in seen.npz."""
    hashes = np.array([line_hash(text) for text in texts], np.uint64)
    # sorted: NumPy's table of small integers, tried first, overflows at hashes in some releases
    train, dev, test = (np.isin(hashes, run_seen[split], kind="sort") for split in ("train", "dev", "test"))
    return ["train" if t else "dev+test" if r else "new" for t, r in zip(train, dev | test, strict=True)]


def training_lines(run: RunDir, trust_code: TrustCode = False) -> list[str]:
    """The lines of train, read from the run's data again.

    Raises UserError where the run is not of lines, or its data is missing or not what it was.
    """
    config = run.read_config(trust_code).data
    if config.kind != "lines":
        raise UserError(
            f"--nearest wants a run on lines, got {str(run.path)!r} with data.kind {config.kind}: running text has no "
            "lines to compare samples with"
        )
    try:
        parts, data_hash = lines_of_splits(read(config), config)
    except UserError as error:
        raise UserError(f"--nearest wants the data of run {str(run.path)!r} back in its place: {error}") from error
    was = run.read_fingerprint()["data"]
    if data_hash != was:
        place = f"data.name {config.name}" if config.path is None else f"data.path {config.path!r}"
        raise UserError(
            f"--nearest wants the data that run {str(run.path)!r} was trained on, but {place} has other content "
            f"(sha256 {was[:8]}, now {data_hash[:8]}): put it back, or train again with --restart"
        )
    return parts["train"]


def shares_of_run(run: RunDir, n: int, step: int, device: str = "auto", trust_code: TrustCode = False) -> Shares:
    """Count where n samples of a run's best checkpoint, which is that of `step`, are found; kept in the run directory.

    Raises UserError where that checkpoint cannot be used.
    """
    kept = _kept(run)
    if kept is not None and (kept.n, kept.seed, kept.step) == (n, SEED, step):
        return kept
    seen = _draw(run.path, n, step, device, trust_code)
    shares = Shares(n, SEED, step, *(seen.count(where) / n for where in ("train", "dev+test", "new")))
    with contextlib.suppress(OSError):
        write_json(run.novelty, dataclasses.asdict(shares))
    return shares


def _kept(run: RunDir) -> Shares | None:
    try:
        kept = Shares(**read_json(run.novelty))
        check_fields(vars(kept), **dict.fromkeys(vars(kept), (int, float)))
    except (ValueError, TypeError):
        return None
    return kept


def _draw(path: Path, n: int, step: int, device: str, trust_code: TrustCode = False) -> list[str]:
    """Where each of n samples has been seen."""
    from jaxlm.data.source import cache_dir
    from jaxlm.devices import compilation, platform

    platform.choose_device(device)
    compilation.enable_cache(cache_dir())
    import jax

    from jaxlm.inference.generate import generate
    from jaxlm.ops import prng
    from jaxlm.runs.loading import load_run

    run = load_run(path, trust_code=trust_code)
    if run.step != step:
        raise UserError(f"run {str(path)!r} lacks the checkpoint that was scored (step {step}): it is broken")
    texts: list[str] = []
    while len(texts) < n:
        key = jax.random.fold_in(prng.from_seed(SEED), len(texts))
        texts += generate(run, n=AT_ONCE, max_tokens=MAX_TOKENS, key=key)
    return list(classify(RunDir(path).read_seen(), texts[:n]))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")

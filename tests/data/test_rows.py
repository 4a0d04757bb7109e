"""Windows, sequences and their table, against plain Python loops."""

from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import DataConfig
from jaxlm.data.corpus import SPLITS, from_lines, from_stream
from jaxlm.data.rows import Tokens, row_table, sequences_at, windows_at

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=8)
SPLIT = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0), (0.1, 0.1, 0.8)])


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 50), SPLIT, st.sampled_from(["lines", "stream"]), st.integers(1, 50))
def test_rows_count_every_prediction_once_and_stay_in_their_line(lengths, width, split, kind, step):
    step = min(step, width)
    text = "\n".join("a" * length for length in lengths)
    config = DataConfig(split=split, kind=kind)
    corpus = (from_lines if kind == "lines" else from_stream)(text, config)
    columns, ranges = row_table(corpus, width, step=step)
    chex.assert_type(list(columns.values()), np.int32)
    for name in SPLITS:
        counted: Counter[int] = Counter()
        for row in range(*ranges[name]):
            first, length, skip = (int(columns[column][row]) for column in ("first", "length", "skip"))
            assert 0 <= skip < length <= width
            assert not (corpus.age_N[first + 1 : first + length] == 0).any()
            assert skip in ((0,) if corpus.age_N[first] == 0 else (width - step,))
            assert corpus.age_N[first] % step == 0
            counted.update(range(first + skip, first + length))
        assert counted == Counter(range(*corpus.bounds[name]))
    assert [ranges["train"][0], ranges["dev"][0], ranges["test"][0]] == [0, ranges["train"][1], ranges["dev"][1]]
    assert ranges["test"][1] == len(columns["first"])


compiled_sequences_at = jax.jit(sequences_at, static_argnames="width")


@settings(deadline=None)
@given(st.lists(st.text("abcdefg", min_size=1, max_size=30), min_size=1, max_size=5), st.sampled_from([1, 2, 3, 5, 8]))
def test_overlapping_sequences_give_each_prediction_its_own_past(lines, width):
    corpus = from_lines("\n".join(lines), DataConfig(split=(1, 0, 0)))
    columns, _ = row_table(corpus, width, step=max(1, width // 2))

    def filled_up(array):
        return jnp.asarray(np.pad(array, (0, 200 - len(array))))

    tokens = Tokens(*map(filled_up, (corpus.tokens_N, corpus.age_N, *columns.values())))
    batch = compiled_sequences_at(tokens, tokens.first_R, tokens.length_R, tokens.skip_R, width=width)
    counted = []
    for tok_T, target_T, weight_T, first in zip(*map(np.asarray, (*batch, tokens.first_R)), strict=True):
        for t in np.flatnonzero(weight_T):
            place = first + t
            past = [0, *corpus.tokens_N[place - corpus.age_N[place] : place].tolist()]
            assert tok_T[: t + 1].tolist() == past[-(t + 1) :]
            assert target_T[t] == corpus.tokens_N[place]
            counted.append(place)
    assert sorted(counted) == list(range(len(corpus.tokens_N)))


def test_places_before_the_first_token_are_eos():
    tokens = Tokens(
        *(jnp.asarray(a) for a in ([4, 5, 0, 6], np.array([0, 1, 2, 0], np.uint16), [0, 3], [3, 1], [0, 0]))
    )
    assert windows_at(tokens, jnp.array([0, 1, 3]), 2).tok.tolist() == [[0, 0], [0, 4], [0, 0]]
    batch = sequences_at(tokens, jnp.array([0, 3]), jnp.array([3, 1]), jnp.array([1, 0]), 4)
    assert batch.tok.tolist() == [[0, 4, 5, 0], [0, 0, 0, 0]]
    assert batch.target.tolist() == [[4, 5, 0, 0], [6, 0, 0, 0]]
    assert np.asarray(batch.weight).tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]

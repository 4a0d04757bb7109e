"""The order of a run's rows as a function of (seed, position): epochs by a keyed permutation, or independent draws."""

import numpy as np

from jaxlm.ops import prng

MOST_ROWS = 2**40
"""Rows that can be ordered at most."""
AT_ONCE = 2**16
"""Rows calculated at once: the arrays between stay in a core's cache."""
ROUNDS = 8
"""Rounds of the network where halves have 8 bits or more."""
BIAS_BITS = 24
"""Two rows' places depend on each other by about 2 ** -BIAS_BITS; small halves need more rounds for that."""

ROUND_KEYS, OFFSETS = range(2)
"""First counter words under an epoch's key: what the random words are for."""


def shuffled(seed: int, start: int, count: int, n: int) -> np.ndarray:
    """The rows at `count` positions of a run from `start` on, each row once an epoch: row_N, int64 from 0 to n - 1.

    Position i belongs to epoch i // n. Its row is a permutation of i % n that depends on (seed, epoch) alone: a Feistel
    network over the next power of two (Luby and Rackoff 1988) that is walked until it is below n (Black and Rogaway
    2002, section 4). No table: memory is O(count), and any position costs the same. Raises ValueError unless
    1 <= n <= MOST_ROWS.
    """
    _check_size(n)
    row_N = np.empty(count, np.int64)
    for first in range(0, count, AT_ONCE):
        position_B = np.arange(start + first, start + min(first + AT_ONCE, count), dtype=np.int64)
        row_N[first : first + len(position_B)] = _permuted(seed, position_B, n)
    return row_N


def with_replacement(seed: int, start: int, steps: int, count: int, n: int) -> np.ndarray:
    """Independent uniform draws for `steps` steps from `start` on: row_KB, int64 from 0 to n - 1.

    row[k, b] = floor(u * n / 2 ** 64), with u the 64 random bits of Threefry at (seed, step, b): the probabilities of
    two rows differ by at most 2 ** -64. Raises ValueError unless 1 <= n <= MOST_ROWS.
    """
    _check_size(n)
    row_KB = np.empty((steps, count), np.int64)
    key, many = prng.words_of(seed, prng.BATCHES), max(1, AT_ONCE // max(1, count))
    column_B = np.arange(count, dtype=np.uint32)[None]
    for first in range(0, steps, many):
        step_K1 = np.arange(start + first, start + min(first + many, steps), dtype=np.uint64)[:, None]
        key_K1 = prng.threefry(key, _halves(step_K1))
        high_KB, low_KB = prng.threefry(key_K1, (np.zeros_like(column_B), column_B))
        row_KB[first : first + many] = multiply_high(high_KB, low_KB, n)
    return row_KB


def offsets(seed: int, epoch_N: np.ndarray, n: int) -> np.ndarray:
    """A uniform number from 0 to n - 1 for each epoch, independent of its permutation: offset_N, int64."""
    _check_size(n)
    zero = np.zeros(1, np.uint32)
    return multiply_high(*prng.threefry(_epoch_keys(seed, epoch_N), (zero + np.uint32(OFFSETS), zero)), n)


def multiply_high(high_N: np.ndarray, low_N: np.ndarray, n: int) -> np.ndarray:
    """floor(u * n / 2 ** 64) of the 64-bit numbers u = high * 2 ** 32 + low, exactly: int64.

    high_N and low_N are uint32; 1 <= n <= MOST_ROWS.
    """
    high_N, low_N = high_N.astype(np.uint64), low_N.astype(np.uint64)
    shift, mask = np.uint64(32), np.uint64(2**32 - 1)
    n_high, n_low = np.uint64(n >> 32), np.uint64(n & (2**32 - 1))
    middle_N = high_N * n_low + (low_N * n_low >> shift)  # at most 2 ** 64 - 2 ** 32
    if not n_high:
        return (middle_N >> shift).astype(np.int64)
    cross_N = low_N * n_high
    carry_N = (middle_N & mask) + (cross_N & mask) >> shift
    return (high_N * n_high + (middle_N >> shift) + (cross_N >> shift) + carry_N).astype(np.int64)


def _permuted(seed: int, position_N: np.ndarray, n: int) -> np.ndarray:
    """The rows of consecutive positions."""
    bits = (n - 1).bit_length()
    if bits == 0:
        return np.zeros(len(position_N), np.int64)
    epoch_N, index_N = np.divmod(position_N, n)
    which_N = epoch_N - epoch_N[0]
    key_RE = _round_keys(seed, np.arange(epoch_N[0], epoch_N[-1] + 1), _rounds(bits))
    one_epoch = key_RE.shape[1] == 1
    row_N = _feistel(index_N, bits, key_RE if one_epoch else key_RE[:, which_N])
    outside_M = np.flatnonzero(row_N >= n)
    while len(outside_M):
        key_RM = key_RE if one_epoch else key_RE[:, which_N[outside_M]]
        walked_M = _feistel(row_N[outside_M], bits, key_RM)
        row_N[outside_M] = walked_M
        outside_M = outside_M[walked_M >= n]
    return row_N


def _feistel(index_N: np.ndarray, bits: int, key_RN: np.ndarray) -> np.ndarray:
    """A permutation of 0 ... 2 ** bits - 1: in turns each half is XORed with a hash of the other and a round's key."""
    right_bits = bits - bits // 2
    left_mask, right_mask = np.uint32(2 ** (bits // 2) - 1), np.uint32(2**right_bits - 1)
    left_N = (index_N >> right_bits).astype(np.uint32)
    right_N = (index_N & int(right_mask)).astype(np.uint32)
    for number, key_N in enumerate(key_RN):
        if number % 2:
            right_N ^= _mix(left_N ^ key_N) & right_mask
        else:
            left_N ^= _mix(right_N ^ key_N) & left_mask
    return left_N.astype(np.int64) << right_bits | right_N


def _mix(x_N: np.ndarray) -> np.ndarray:
    """A bijection of 32 bits in which each input bit changes each output bit half of the time (Wellons' lowbias32).

    Works in place.
    """
    x_N ^= x_N >> np.uint32(16)
    x_N *= np.uint32(0x21F0AAAD)
    x_N ^= x_N >> np.uint32(15)
    x_N *= np.uint32(0xD35A2D97)
    x_N ^= x_N >> np.uint32(15)
    return x_N


def _rounds(bits: int) -> int:
    """Rounds for a domain of that many bits: each two of them divide the bias by 2 ** (bits // 2)."""
    half = max(1, bits // 2)
    return max(ROUNDS, 2 + -(-2 * BIAS_BITS // half))


def _round_keys(seed: int, epoch_E: np.ndarray, rounds: int) -> np.ndarray:
    """A random word for each round and epoch, key_RE, uint32."""
    round_R1 = np.arange(rounds, dtype=np.uint32)[:, None]
    first, second = prng.threefry(_epoch_keys(seed, epoch_E), (np.full_like(round_R1, ROUND_KEYS), round_R1))
    return first ^ second


def _epoch_keys(seed: int, epoch_E: np.ndarray) -> prng.Words:
    return prng.threefry(prng.words_of(seed, prng.BATCHES), _halves(epoch_E.astype(np.uint64)))


def _halves(number_N: np.ndarray) -> prng.Words:
    """The high and the low 32 bits of uint64 numbers."""
    return (number_N >> np.uint64(32)).astype(np.uint32), number_N.astype(np.uint32)


def _check_size(n: int) -> None:
    if not 1 <= n <= MOST_ROWS:
        raise ValueError(f"an order of rows wants from 1 to {MOST_ROWS:,} rows, got {n:,}")

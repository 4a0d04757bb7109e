"""PROVISIONAL."""
# ruff: noqa
# mypy: ignore-errors

import jax

from jaxlm.data.batches import Batch, prepare, sequence_length


class Dataset:
    def __init__(self, config, corpus, *, context, max_length, row_multiple=1, shard_rows=None, replicated=None):
        self.b, host, self.rows = prepare(config, corpus, context, max_length)
        self.tokens = jax.device_put(host, replicated)
        self.seed = config.seed
        self.shard = shard_rows or (lambda t, axis: t)
        self.examples = self.b.examples
        self.batch_size = self.b.batch_size
        self.targets_per_row = self.b.targets_per_row
        self.full = self.b.full
        self._many = jax.jit(
            lambda tokens, row_KB: self.shard(jax.vmap(lambda r: self.b.at(tokens, r))(row_KB), axis=1)
        )
        self._one = jax.jit(lambda tokens, row_B: self.shard(self.b.rows(tokens, row_B), axis=0))

    def batches(self, step, K):
        row = self.b.draw(self.seed, range(step, step + (1 if self.full else K)))
        return self._many(self.tokens, row)

    def batch(self, row_B):
        return self._one(self.tokens, row_B)

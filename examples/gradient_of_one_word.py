"""Rank names by how much a model learns about them from one word: gradients of single words, compared.

    python train.py configs/names_mlp.py
    python examples/gradient_of_one_word.py runs/names_mlp emma

The loss of a word is a function of the parameters, so jax.grad gives its gradient, and jax.vmap those of many words at
once. A small step against the gradient g of one word lowers the loss of another, with gradient g', by about
rate * <g, g'>. The cosine of the two says how far learning the first teaches the second: printed are the names that
gain most and those that lose, then the check, how the losses change by one step.
"""

import argparse
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import jaxlm

LONGEST, CANDIDATES = 12, 400


def main(path: str, word: str, rate: float) -> None:
    """Open the run, rank some names by what the word teaches about them."""
    run = jaxlm.load_run(path)
    lines = resources.files("jaxlm").joinpath("bundled/ssa_2017.txt").read_text("utf-8").split()
    known = [line for line in lines if len(line) < LONGEST and set(line) <= set(run.tokenizer.words) and line != word]
    chosen = np.random.default_rng(0).choice(sorted(set(known)), CANDIDATES, replace=False).tolist()
    words = [word, *chosen]
    tok_BT = np.zeros((len(words), LONGEST + 1), np.int32)
    for row_T, name in zip(tok_BT, words, strict=True):
        tokens = run.tokenizer.encode(name)
        row_T[1 : 1 + len(tokens)] = tokens
    length_B = np.array([len(name) + 1 for name in words])
    flat_P, unravel = ravel_pytree(run.params)

    def loss_of(flat_P: jax.Array, tok_T: jax.Array, length: jax.Array) -> jax.Array:
        logits_TV = run.model.apply(unravel(flat_P), tok_T[None, :-1])[0]
        nats_T = optax.softmax_cross_entropy_with_integer_labels(logits_TV, tok_T[1:])
        return jnp.sum(nats_T * (jnp.arange(LONGEST) < length)) / length

    losses_of = jax.jit(jax.vmap(loss_of, in_axes=(None, 0, 0)))
    gradients = jax.jit(jax.vmap(jax.grad(loss_of), in_axes=(None, 0, 0)))
    gradient_BP = np.asarray(gradients(flat_P, tok_BT, length_B))
    gradient_BP = gradient_BP / np.linalg.norm(gradient_BP, axis=1, keepdims=True)
    cosine_B = gradient_BP @ gradient_BP[0]
    after_P = flat_P - rate * gradient_BP[0]
    gain_B = np.asarray(losses_of(flat_P, tok_BT, length_B) - losses_of(after_P, tok_BT, length_B))

    print(f"{'':12} cosine  nats gained by a step of length {rate:g} for {word!r}")
    order = np.argsort(-cosine_B)
    for b in (*order[:8].tolist(), *order[-4:].tolist()):
        print(f"{words[b]:12} {cosine_B[b]:>6.3f}  {gain_B[b]:>+.5f}")
    print(f"correlation of cosine and gain over {CANDIDATES} names: {np.corrcoef(cosine_B[1:], gain_B[1:])[0, 1]:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run", help="a run directory of a model that is trained by steps, on letters")
    parser.add_argument("word")
    parser.add_argument("--rate", type=float, default=0.02)
    args = parser.parse_args()
    main(args.run, args.word, args.rate)

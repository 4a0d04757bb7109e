"""Compare two models on a word, letter by letter: a table of counts and a network, for example.

    python train.py configs/names_kneser_ney.py && python train.py configs/names_mlp.py
    python examples/two_models.py runs/names_kneser_ney runs/names_mlp jacqueline

Every model behind `jaxlm.load_run` has the same `apply`, a count model too: logits_BTV of the token after each
position. So two models on the same tokens compare by subtraction. For each place in the word it prints the probability
that either gives to the letter that follows, the Kullback-Leibler divergence of the two distributions in nats,
sum_v p(v) (log p(v) - log q(v)), and the letters for which the first has more and less than the second.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import jaxlm


def log_probabilities(run: jaxlm.Run, word: str) -> tuple[np.ndarray, np.ndarray]:
    """The log p of every token after each prefix of a word, logp_TV, and what follows, target_T; 0 ends the word."""
    tokens = run.tokenizer.encode(word)
    tok_BT, target_T = jnp.array([[0, *tokens]]), np.array([*tokens, 0])
    logits_TV = jax.jit(run.model.apply)(run.params, tok_BT)[0]
    return np.asarray(jax.nn.log_softmax(logits_TV.astype(jnp.float32))), target_T


def main(first: str, second: str, word: str) -> None:
    """Open both runs, print a line for each letter."""
    runs = [jaxlm.load_run(first), jaxlm.load_run(second)]
    if runs[0].tokenizer != runs[1].tokenizer:
        raise SystemExit("the two runs want the same tokens: train both on the same text")
    (p_TV, target_T), (q_TV, _) = (log_probabilities(run, word) for run in runs)
    spell = runs[0].tokenizer.spell
    print(f"{'prefix':>12} next  p first  p second  divergence  more / less in the first")
    for t, target in enumerate(target_T.tolist()):
        p_V, q_V = np.exp(p_TV[t]), np.exp(q_TV[t])
        with np.errstate(invalid="ignore"):
            divergence = np.nansum(p_V * (p_TV[t] - q_TV[t]))
        order = np.argsort(q_V - p_V).tolist()
        more, less = ("".join(spell(token) for token in tokens) for tokens in (order[:3], order[:-4:-1]))
        print(
            f"{word[:t] or '(start)':>12} {spell(target):>4} {p_V[target]:>8.3f} {q_V[target]:>9.3f} "
            f"{divergence:>11.3f}  {more} / {less}"
        )
    nats = [float(-x_TV[np.arange(len(target_T)), target_T].mean()) for x_TV in (p_TV, q_TV)]
    print(f"nats per letter: {nats[0]:.4f} and {nats[1]:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("first", help="a run directory, of counts for example")
    parser.add_argument("second", help="another on the same tokens")
    parser.add_argument("word")
    args = parser.parse_args()
    main(args.first, args.second, args.word)

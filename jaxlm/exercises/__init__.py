"""The exercises of the makemore lecture: python -m jaxlm.exercises E03. Nothing else imports them."""

EXERCISES = {
    "E01": "a trigram model, by counts and as a neural net: does it beat the bigram?",
    "E02": "bigram and trigram from train only: losses on dev and test",
    "E03": "the trigram's smoothing, tuned on dev",
    "E04": "rows of W by index in place of one-hot products",
    "E05": "cross-entropy from logits in place of softmax, log and a look-up",
    "E06": "any order with interpolated modified Kneser-Ney smoothing: what a GPT has to beat",
}
"""The title of each exercise."""

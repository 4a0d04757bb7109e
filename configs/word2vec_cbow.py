"""CBOW with negative sampling (Mikolov et al. 2013b) on a text of your own, a line a sentence.

    python train.py configs/word2vec_cbow.py --data.path corpus.txt

On 3.6 million words (WordNet's glosses and the State of the Union speeches) its 5 epochs end at a held-out loss of
2.095 nats per pair after 58 s on one core that others used too, 308,000 words a second; WordSim353 .460, SimLex-999
.227, 5.3 % of the analogy questions. Nearest to
france: spain italy belgium germany holland austria; monday: 4th november january 30th september 1st;
king: son emperor czar throne queen prince; war: battle hostilities revolution insurrection wars 1812;
water: air stream dry liquid soil vapor.

A word is predicted once, not once for each neighbour: updates of 256 words are as gentle as skip-gram's of 128.
With 8 shared negatives in place of 16 it is faster, and answers fewer analogies.
"""

from jaxlm import DataConfig, OptimConfig, RunConfig, Word2vecConfig, WordsConfig

config = RunConfig(
    model=Word2vecConfig(predict="cbow", shared_negatives=16, blocks=8),
    data=DataConfig(kind="lines", tokens=WordsConfig(), split=(0.99, 0.01, 0.0)),
    optim=OptimConfig(lr=0.025, schedule="linear", end_factor=0.004),
    epochs=5,
    batch_size=65_536,
)

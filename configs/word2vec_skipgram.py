"""Skip-gram with negative sampling (Mikolov et al. 2013b) on a text of your own, a line a sentence.

    python train.py configs/word2vec_skipgram.py --data.path corpus.txt

On 3.6 million words (WordNet's glosses and the State of the Union speeches) it ends at a held-out loss of 2.439 nats
per pair after 32 s on two cores; WordSim353 .573, SimLex-999 .310, 9.6 % of the analogy questions.
"""

from jaxlm import DataConfig, OptimConfig, RunConfig, Word2vecConfig, WordsConfig

config = RunConfig(
    model=Word2vecConfig(predict="skip-gram"),
    data=DataConfig(kind="lines", tokens=WordsConfig(), split=(0.99, 0.01, 0.0)),
    optim=OptimConfig(lr=0.025, schedule="linear", end_factor=0.004),
    epochs=5,
    batch_size=65_536,
)

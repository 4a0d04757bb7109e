"""The command of sample.py: a language model writes and scores, a table of vectors answers about words."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxlm.cli.parsing import OpensRuns, parse, trust_last
from jaxlm.config import check
from jaxlm.config.mesh import MeshConfig
from jaxlm.config.run import DRAFT_TOKENS, MOST_DRAFT_TOKENS, MOST_SAMPLES
from jaxlm.errors import UserError

ASK_TEXT = ("--compare", "--nearest", "--interactive", "--score", "--score-text", "--explain")
"""Options for a language model; it samples where none is given."""
TEXT = (
    *ASK_TEXT,
    "-n",
    "--n",
    "--prompt",
    "--max-tokens",
    "--temperature",
    "--weights",
    "--top-k",
    "--top-p",
    "--min-p",
    "--repetition-penalty",
    "--seed",
    "--stop",
    "--draft",
    "--draft-tokens",
    "--by-vector",
    "--mesh.data",
    "--mesh.fsdp",
    "--mesh.tensor",
)
ASK_WORDS = ("--similar", "--analogy", "--odd-one-out", "--evaluate", "--pairs", "--export", "--plot-words")
"""Options for a table of vectors; one of them has to be given."""
UNDRAFTED = ("--compare", "--by-vector", "--score", "--score-text", "--explain")
"""Options for a language model that --draft does not go with."""
NEEDS = {
    "--method": ("--analogy",),
    "--top": ("--similar", "--analogy", "--plot-words"),
    "--projection": ("--plot-words",),
    "--out": ("--plot-words",),
}
"""Options that go with a question to a table only, and the questions."""
WORDS = (*ASK_WORDS, *NEEDS, "--skip-bad-rows")


@dataclasses.dataclass(frozen=True)
class SampleCommand(OpensRuns):
    """Sample from a trained run, score a text with it, or ask the vectors of words of a word2vec run or a file."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory, or for questions about words a file of vectors.
    Its format is one of word2vec's or GloVe's, gzipped or not."""
    n: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Samples for a prompt. None: 20, with --interactive 5."""
    prompt: str = ""
    """Text that each sample begins with; one longer than the context is seen from its end."""
    max_tokens: int | None = None
    """Tokens after the prompt at most. None: 200 of a line, 500 of running text."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int | None = None
    """Draw from the k most likely tokens only (and those as likely as the last of them)."""
    top_p: float | None = None
    """Draw from the fewest most likely tokens that reach this probability together (ties kept)."""
    min_p: float | None = None
    """Draw from tokens at least this times as likely as the most likely one."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens that the text already has; 1 is off."""
    seed: int = 0
    """The same seed gives the same samples, and the same first ones where there are more."""
    stop: str = ""
    """End a sample before this text."""
    draft: Path | None = None
    """A run with the same tokenizer that proposes tokens (speculative decoding).
    The distribution stays; it takes less time where the draft is quick and often right."""
    draft_tokens: int = DRAFT_TOKENS
    """Tokens that --draft proposes for each pass of the run."""
    compare: bool = False
    """Print samples of the untrained (those that init_from gave, if set) and of the trained parameters side by side."""
    nearest: bool = False
    """Beside each sample its nearest training line and their edit distance, and the rate of exact copies."""
    by_vector: bool = False
    """On a REAN run: take the token whose vector is nearest to the predicted one; [NIV] where none is near."""
    interactive: bool = False
    """Ask for prompts, or talk with a model of dialogues; /help lists the commands."""
    score: Path | None = None
    """Score this text file."""
    score_text: str | None = None
    """Score this text, token by token."""
    explain: str | None = None
    """Show the most likely alternatives of each token of this text, and what train has of its context."""
    similar: str | None = None
    """Vectors: the words nearest to this one."""
    analogy: tuple[str, ...] | None = None
    """Vectors: A B C, the word that is to C as B is to A."""
    method: Literal["3cosadd", "3cosmul"] = "3cosadd"
    """How --analogy scores: by the sum or by the product of cosines."""
    odd_one_out: tuple[str, ...] | None = None
    """Vectors: the word that goes least with the others."""
    evaluate: Path | None = None
    """Vectors: the share of this file's analogy questions (as in questions-words.txt) that are answered rightly."""
    pairs: Path | None = None
    """Vectors: how their cosines go with this file's scores of pairs of words (as in wordsim353.tsv)."""
    export: Path | None = None
    """Write the vectors: .txt (word2vec's text), .bin (its binary), .glove.txt; with .gz on top gzipped."""
    plot_words: tuple[str, ...] | None = None
    """Vectors: a picture of these words; without any, of the most frequent."""
    projection: Literal["pca", "tsne"] = "pca"
    """How --plot-words places words: principal components, or t-SNE (pip install "jaxlm[tsne]")."""
    top: int | None = None
    """Answers of --similar and --analogy (10), frequent words of --plot-words (200)."""
    out: Path | None = None
    """The picture of --plot-words. None: words-PROJECTION.png in the run's plots/, for a file of vectors here."""
    skip_bad_rows: bool = False
    """A file of vectors: leave out rows that are malformed or not finite, and say which; else the first is an error."""
    json: bool = False
    """Print JSON."""
    checkpoint: Literal["best", "last"] = "best"
    """Which parameters: the best by dev loss, or the last."""
    weights: Literal["ema", "raw"] = "ema"
    """On a run with optim.ema: the average of its parameters, or the parameters themselves (raw)."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto: the best that JAX finds."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """Devices that share a model that one alone does not hold; the mesh of its training does not matter."""
    given: tyro.conf.Suppress[tuple[str, ...]] = ()
    """The options that the command line has, in its order."""

    def first_given(self, options: Sequence[str]) -> str | None:
        """The first of some options that the command line has."""
        return next((option for option in self.given if option in options), None)


def parse_sample(args: list[str]) -> SampleCommand:
    """The command of sample.py. Raises UserError for values out of range, before anything is loaded."""
    command = parse(SampleCommand, trust_last(args), prog="sample.py")
    check.between("--n", command.n, 1, MOST_SAMPLES)
    check.between("--max-tokens", command.max_tokens, 1, MOST_SAMPLES)
    check.at_least("--temperature", command.temperature, 0)
    check.at_least("--top-k", command.top_k, 1)
    check.half_open("--top-p", command.top_p, 0, 1)
    check.between("--min-p", command.min_p, 0, 1)
    check.more_than("--repetition-penalty", command.repetition_penalty, 0)
    check.between("--seed", command.seed, 0, 2**32 - 1)
    check.at_least("--top", command.top, 1)
    if command.analogy is not None and len(command.analogy) != 3:
        raise UserError(f"--analogy wants three words (A is to B as C is to ...), got {len(command.analogy)}")
    command = dataclasses.replace(command, given=_options(args))
    asked = [option for option in (*ASK_TEXT, *ASK_WORDS) if option in command.given]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} exclude each other: give one of them")
    if command.json and command.interactive:
        raise UserError("--json and --interactive exclude each other: give one of them")
    if command.interactive and "--prompt" in command.given:
        raise UserError("--prompt and --interactive, which asks for prompts, exclude each other: give one of them")
    check.between("--draft-tokens", command.draft_tokens, 1, MOST_DRAFT_TOKENS)
    if "--draft-tokens" in command.given and command.draft is None:
        raise UserError("--draft-tokens goes with --draft, which is not given")
    other = command.first_given(UNDRAFTED)
    if command.draft is not None and other:
        raise UserError(f"--draft and {other} exclude each other: a draft is for samples of the trained run")
    text, words = command.first_given(TEXT), command.first_given(WORDS)
    if text and words:
        raise UserError(f"{text} is for language models and {words} for vectors of words: give one of them")
    for option, questions in NEEDS.items():
        if option in command.given and not command.first_given(questions):
            raise UserError(f"{option} goes with {' or '.join(questions)}, which is not given")
    if command.plot_words and command.top is not None:
        raise UserError("--top and the words of --plot-words exclude each other: give one of them")
    return command


def _options(args: Sequence[str]) -> tuple[str, ...]:
    """The names of the options among arguments, spelled as the help spells them."""
    names = (arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("-"))
    return tuple(dict.fromkeys(names))

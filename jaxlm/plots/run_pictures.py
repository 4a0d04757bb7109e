"""The plots of a run directory, drawn from the numbers that it holds."""

from matplotlib import rc_context

from jaxlm.data.bigrams import load_bigrams
from jaxlm.errors import UserError
from jaxlm.plots import pictures
from jaxlm.plots.word_points import load_points
from jaxlm.runs import metrics
from jaxlm.runs.directory import RunDir, decoding, read_json


def draw_run(run: RunDir) -> None:
    """Draw the loss curve of a run, and the bigrams of its data or the map of its words, into its plots/.

    Token shards have no bigrams. Raises UserError if plots/ lacks the numbers to draw, or a file of the run is damaged.
    """
    numbers = run.word_points if run.word_points.is_file() else run.bigrams
    if not numbers.is_file() and not (run.plots.is_dir() and _is_of_shards(run)):
        raise UserError(f"run {str(run.path)!r} has no plots/{numbers.name}: it was trained with --no-plots")
    with rc_context(pictures.STYLE):
        if not numbers.is_file():
            pass
        elif numbers == run.bigrams:
            with decoding(numbers):
                counts = load_bigrams(numbers)
            with decoding(run.config):  # read as JSON: a model's class may be in a file of the user's own
                kind = read_json(run.config)["data"]["kind"]
            pictures.bigram_table(counts, run.plots / "bigrams.png", run.read_tokenizer(), kind)
            pictures.frequent_pairs(counts, run.plots / "pairs.png")
        else:
            with decoding(numbers):
                words, xy_N2 = load_points(numbers)
            title = pictures.map_title(run.path.name, len(words), "pca")
            pictures.word_map(words, xy_N2, run.plots / "words.png", title)
        if run.metrics.exists():
            pictures.loss_curve(metrics.read(run.metrics), run.plots / "loss.png")


def _is_of_shards(run: RunDir) -> bool:
    """True if a run was trained on token shards, of which nothing is counted."""
    with decoding(run.config):
        return bool(read_json(run.config)["data"]["tokens"]["class"] == "jaxlm:PreparedTokensConfig")

"""sample.py on vectors of words, a word2vec run's or a file's: neighbours, analogies, scores, export, pictures."""

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

from jaxlm.cli.process import show
from jaxlm.cli.sample_command import SampleCommand
from jaxlm.embeddings import Embeddings, maps, reports
from jaxlm.errors import UserError
from jaxlm.runs.directory import RunDir
from jaxlm.word2vec.loading import load_vectors

ANSWERS, SHOWN = 10, 200
"""Words where --top does not say how many: of an answer, of a picture."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Vectors, and where their pictures go."""

    embeddings: Embeddings
    plots: Path
    source: str
    """For a picture's title."""


def answer_words(command: SampleCommand) -> None:
    """Open the vectors, do what was asked, print."""
    show(_answer(command, _open(command)))


def _open(command: SampleCommand) -> Table:
    log = partial(show, file=sys.stderr)
    if command.run.is_file():
        return Table(
            Embeddings.load(command.run, skip_bad_rows=command.skip_bad_rows, log=log), Path(), command.run.name
        )
    run = load_vectors(command.run, which=command.checkpoint, trust_code=command.trusted, log=log)
    return Table(run.embeddings(), RunDir(run.path).plots, run.path.name)


def _answer(command: SampleCommand, table: Table) -> str:
    embeddings, top, as_json = table.embeddings, command.top or ANSWERS, command.json
    if command.similar is not None:
        return reports.report_similar(embeddings, command.similar, top, as_json)
    if command.analogy is not None:
        return reports.report_analogy(embeddings, command.analogy, top, command.method, as_json)
    if command.odd_one_out is not None:
        return reports.report_odd_one_out(embeddings, command.odd_one_out, as_json)
    if command.evaluate is not None:
        return reports.report_analogy_accuracy(embeddings, command.evaluate, as_json=as_json)
    if command.pairs is not None:
        return reports.report_pair_correlation(embeddings, command.pairs, as_json=as_json)
    if command.export is not None:
        return reports.export(embeddings, command.export, as_json)
    return _plot(command, table)


def _plot(command: SampleCommand, table: Table) -> str:
    from jaxlm.plots import pictures

    path = command.out or table.plots / f"words-{command.projection}.png"
    chosen = list(command.plot_words) if command.plot_words else None
    words, xy_N2 = maps.project_words(table.embeddings, chosen, command.top or SHOWN, command.projection)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures.word_map(words, xy_N2, path, pictures.map_title(table.source, len(words), command.projection))
    except OSError as error:
        raise UserError(f"the picture {str(path)!r} cannot be written: {error.strerror or error}") from error
    except ValueError as error:  # matplotlib's, for a suffix that it has no format for
        raise UserError(f"--out {str(path)!r} cannot be drawn: {error}") from error
    return json.dumps({"path": str(path), "words": len(words)}) if command.json else f"{len(words)} words in {path}"

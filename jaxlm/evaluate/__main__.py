"""Measure runs on a text and on questions: python -m jaxlm.evaluate RUN [RUN ...] --text FILE --choices FILE.jsonl."""

import json
import sys
from pathlib import Path

from jaxlm.cli.process import run_main, show
from jaxlm.cli.report_commands import EvaluateCommand, parse_evaluate
from jaxlm.data.source import cache_dir, read_text
from jaxlm.devices import compilation, platform
from jaxlm.errors import UserError, naming, one_line
from jaxlm.evaluate import report
from jaxlm.evaluate.choices import evaluate_choices
from jaxlm.evaluate.questions import Question, read_questions
from jaxlm.evaluate.text import evaluate_text
from jaxlm.leaderboard import Row, read_row
from jaxlm.runs.loading import Run, load_run


def main(args: list[str]) -> int:
    """Measure the runs that the arguments name, and print a table of them."""
    command = parse_evaluate(args)
    text = None if command.text is None else read_text(command.text, "--text")
    questions = None if command.choices is None else read_questions(command.choices)
    platform.choose_device(command.device)
    compilation.enable_cache(cache_dir())
    results, reasons = [], []
    for path in command.runs:
        try:
            results.append(measure(_open(path, command), text, questions, command.stride))
        except UserError as error:
            reasons.append(one_line(str(error)))
    if not results:
        raise UserError("; ".join(dict.fromkeys(reasons)))
    if command.stride is not None and all(result.text and result.text.stride is None for result in results):
        raise UserError("--stride wants a model that reads strided windows, got none: each token sees all that it can")
    for reason in reasons:
        show(f"left out: {reason}", file=sys.stderr)
    if command.json:
        print(json.dumps([result.to_json() for result in results], indent=2))
    else:
        show(report.table(results, command.text, command.choices))
    return 0


def measure(run: Run, text: str | None, questions: list[Question] | None, stride: int | None) -> report.RunResult:
    """Measure a run on a text and on questions, either of which may be left out."""
    of_text = of_choices = None
    if text is not None:
        with naming(f"--text, run {str(run.path)!r}"):
            of_text = evaluate_text(run, text, stride)
    if questions is not None:
        of_choices = evaluate_choices(run, questions)
    model = type(run.config.model).__name__.removesuffix("Config")
    return report.RunResult(run.path, model, of_text, of_choices, _ranked(run.path))


def _open(path: Path, command: EvaluateCommand) -> Run:
    return load_run(
        path, which=command.checkpoint, trust_code=command.trusted, log=lambda line: show(line, file=sys.stderr)
    )


def _ranked(path: Path) -> Row | None:
    try:
        return read_row(path)
    except UserError:  # not finished
        return None


if __name__ == "__main__":
    run_main(main)

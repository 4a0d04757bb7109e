"""sample.py: sample from a language model, score and compare with it, or query vectors of words (cli/vectors.py).

Quickly imported, so that Ctrl-C is handled from the start.
"""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from jaxlm.cli.process import run_main, show
from jaxlm.errors import UserError, naming

if TYPE_CHECKING:
    from jaxlm.cli.sample_command import SampleCommand


def main() -> NoReturn:
    """Run sample.py with the process's arguments, and exit."""
    run_main(_main)


def _main(args: list[str]) -> int:
    from jaxlm.cli.sample_command import parse_sample

    answer(parse_sample(args))
    return 0


def answer(command: SampleCommand) -> None:
    """Open the run, do what the command says, print the result."""
    from jaxlm.cli import interactive
    from jaxlm.cli.sample_command import WORDS
    from jaxlm.data.source import cache_dir
    from jaxlm.devices import compilation, platform
    from jaxlm.runs.directory import open_existing

    if command.interactive and sys.stdin is None:
        raise UserError("--interactive wants lines on standard input, which is closed")
    if command.run.is_file():
        _about_words(command)
        return
    run_dir = open_existing(command.run)
    if not run_dir.read_config(command.trusted).model.predicts_text:
        _about_words(command)
        return
    option = command.first_given(WORDS)
    if option:
        raise UserError(
            f"{option} is for vectors of words; run {str(command.run)!r} is a language model: give a word2vec run or "
            "a file of vectors"
        )
    lines = None
    if command.nearest:
        from jaxlm.inference.novelty import training_lines

        lines = training_lines(run_dir, command.trusted)
    platform.choose_device(command.device)
    compilation.enable_cache(cache_dir())
    from jaxlm.inference.generate import by_vector
    from jaxlm.runs.loading import load_run

    run = load_run(
        command.run,
        which=command.checkpoint,
        weights=command.weights,
        trust_code=command.trusted,
        mesh=command.mesh,
        log=partial(show, file=sys.stderr),
    )
    if command.by_vector:
        run = by_vector(run)
    draft = _draft(command, run)
    if command.score is not None or command.score_text is not None:
        _score(command, run)
    elif command.explain is not None:
        _explain(command, run)
    elif command.compare:
        _compare(command, run)
    elif command.interactive:
        if run.config.data.kind == "dialogues":
            interactive.converse(command, run, draft)
        else:
            interactive.sample(command, lambda command: _joined(_drawn(command, run, draft)[0]))
    elif lines is not None:
        _nearest(command, run, draft, lines)
    else:
        _sample(command, run, draft)


def _about_words(command: SampleCommand) -> None:
    from jaxlm.cli.sample_command import ASK_WORDS, TEXT
    from jaxlm.data.source import cache_dir
    from jaxlm.devices import compilation, platform

    file = command.run.is_file()
    what = f"run {str(command.run)!r} {'is a file' if file else 'has vectors of words'}"
    option = command.first_given(TEXT)
    if option:
        raise UserError(f"{option} wants the run directory of a language model; {what}")
    if not command.first_given(ASK_WORDS):
        questions = f"{', '.join(ASK_WORDS[:-1])} or {ASK_WORDS[-1]}"
        raise UserError(f"{what}, which {'if it has vectors ' if file else ''}answers {questions}: give one of them")
    if file and "--checkpoint" in command.given:
        raise UserError(f"--checkpoint wants a run directory; {what}")
    if not file and command.skip_bad_rows:
        raise UserError(f"--skip-bad-rows wants a file of vectors; {what}")
    platform.choose_device(command.device)
    compilation.enable_cache(cache_dir())
    from jaxlm.cli.vectors import answer_words

    answer_words(command)


def _draft(command: SampleCommand, run: Any) -> Any:
    """The run of --draft, None without it."""
    if command.draft is None:
        return None
    from jaxlm.inference.generate import check_draft
    from jaxlm.runs.loading import load_run

    log = partial(show, file=sys.stderr)
    with naming("--draft"):
        draft = load_run(command.draft, trust_code=command.trusted, mesh=command.mesh, log=log)
    check_draft(run, draft)
    return draft


def _drawn(command: SampleCommand, run: Any, draft: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Samples, and what JSON has of each of them beside its text; a line on standard error says how a draft did."""
    from jaxlm.inference import formatting

    tallies: list[Any] = []
    texts = _texts(command, run, draft=draft, report=tallies.append)
    if not tallies:
        return texts, [{} for _ in texts]
    show(formatting.draft_line(tallies[0], str(draft.path), str(run.path)), file=sys.stderr)
    return texts, [{"draft": formatting.draft_json(row)} for row in tallies[0].rows()]


def _texts(command: SampleCommand, run: Any, params: Any = None, draft: Any = None, report: Any = None) -> list[str]:
    from jaxlm.inference.generate import generate
    from jaxlm.ops import prng

    usual = 200 if run.config.data.kind == "lines" else 500
    return generate(
        run,
        n=command.n or 20,
        prompt=command.prompt,
        temperature=command.temperature,
        top_k=command.top_k,
        top_p=command.top_p,
        min_p=command.min_p,
        repetition_penalty=command.repetition_penalty,
        max_tokens=command.max_tokens or usual,
        stop=command.stop,
        key=prng.from_seed(command.seed),
        params=params,
        draft=draft,
        draft_tokens=command.draft_tokens,
        report=report,
    )


def _sample(command: SampleCommand, run: Any, draft: Any) -> None:
    from jaxlm.inference import formatting
    from jaxlm.inference.novelty import classify
    from jaxlm.runs.directory import RunDir

    texts, more = _drawn(command, run, draft)
    seen = None
    if run.config.data.kind == "lines":
        try:
            seen = classify(RunDir(run.path).read_seen(), texts)
        except UserError as error:
            show(f"the samples are not sorted: {error}", file=sys.stderr)
    if seen is None:
        if command.json:
            print(json.dumps([{"text": text} | fields for text, fields in zip(texts, more, strict=True)]))
        else:
            show(_joined(texts))
    elif command.json:
        rows = zip(texts, seen, more, strict=True)
        print(json.dumps([{"text": text, "seen": where} | fields for text, where, fields in rows]))
    else:
        show(formatting.sorted_samples(texts, seen))


def _nearest(command: SampleCommand, run: Any, draft: Any, lines: list[str]) -> None:
    from jaxlm.inference import formatting
    from jaxlm.inference.novelty import by_length, classify, nearest
    from jaxlm.runs.directory import RunDir

    texts, more = _drawn(command, run, draft)
    seen = classify(RunDir(run.path).read_seen(), texts)
    groups = by_length(lines)
    found = {text: nearest(text, groups) for text in dict.fromkeys(texts)}
    if command.json:
        pairs = [
            {"text": text, "seen": where, "nearest": found[text].line, "distance": found[text].distance} | fields
            for text, where, fields in zip(texts, seen, more, strict=True)
        ]
        print(json.dumps(pairs))
    else:
        show(formatting.samples_with_nearest(texts, seen, [found[text] for text in texts]))


def _compare(command: SampleCommand, run: Any) -> None:
    from jaxlm.inference import formatting

    untrained, trained = _texts(command, run, run.untrained()), _texts(command, run)
    if command.json:
        print(json.dumps({"untrained": untrained, "trained": trained}))
    else:
        show(formatting.side_by_side(untrained, trained, (run.config.init_from or "untrained", "trained")))


def _score(command: SampleCommand, run: Any) -> None:
    from jaxlm.data.source import read_text
    from jaxlm.inference import formatting
    from jaxlm.inference.score import score

    if command.score is not None:
        option, text = "--score", read_text(command.score, "--score")
    else:
        option, text = "--score-text", command.score_text or ""
    with naming(option):
        scored = score(run, text)
    if command.json:
        print(json.dumps(formatting.score_json(scored)))
    else:
        show(formatting.score_line(scored.total) if command.score is not None else formatting.term_by_term(scored))


def _explain(command: SampleCommand, run: Any) -> None:
    from jaxlm.inference import formatting
    from jaxlm.inference.explain import explain

    with naming("--explain"):
        explanation = explain(run, command.explain or "")
    if command.json:
        print(json.dumps(formatting.explanation_json(explanation)))
    else:
        show(formatting.explained(explanation, shutil.get_terminal_size().columns))


def _joined(texts: list[str]) -> str:
    """Texts under each other; those of several lines set apart."""
    return ("\n---\n" if any("\n" in text for text in texts) else "\n").join(texts)

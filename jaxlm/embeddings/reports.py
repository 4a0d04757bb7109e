"""Results of queries to a table of vectors as text or as one line of JSON, for sample.py to print."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlm.embeddings import intrinsic_evaluation as evaluation
from jaxlm.embeddings.embeddings import Embeddings, Method, ScoredWords
from jaxlm.errors import UserError


def report_similar(embeddings: Embeddings, word: str, top: int = 10, as_json: bool = False) -> str:
    """List the nearest words with their cosines (`--similar WORD`)."""
    found = embeddings.similar(word, _at_least_1(top))
    return _json(word=word, similar=_pairs(found)) if as_json else _table(found)


def report_analogy(
    embeddings: Embeddings, abc: Sequence[str], top: int = 10, method: Method = "3cosadd", as_json: bool = False
) -> str:
    """List the words that complete "a is to b as c is to ..." with their scores (`--analogy A B C`)."""
    if len(abc) != 3:
        raise UserError(f"--analogy wants three words (A is to B as C is to ...), got {len(abc)}")
    a, b, c = abc
    found = embeddings.analogy(a, b, c, _at_least_1(top), method)
    if as_json:
        return _json(a=a, b=b, c=c, method=method, answers=_pairs(found))
    return f"{a} is to {b} as {c} is to ... ({method})\n{_table(found)}"


def report_odd_one_out(embeddings: Embeddings, words: Sequence[str], as_json: bool = False) -> str:
    """Report the word least similar to the others, and each word's cosine to their mean (`--odd-one-out A B C ...`)."""
    agreement = embeddings.agreement(words)
    odd = min(agreement, key=lambda scored: scored[1])[0]
    if as_json:
        return _json(odd=odd, words=_pairs(agreement))
    return f"{odd}\ncosine to the mean of all:\n{_table(sorted(agreement, key=lambda scored: -scored[1]))}"


def report_analogy_accuracy(
    embeddings: Embeddings, path: str | Path, restrict: int | None = evaluation.RESTRICT, as_json: bool = False
) -> str:
    """Report the accuracy on a file's analogy questions, by section and in total (`--evaluate FILE`)."""
    score = evaluation.evaluate_analogies(embeddings, path, restrict=restrict)
    rows = [*score.sections, score.total]
    if as_json:
        *sections, total = (dataclasses.asdict(row) | {"accuracy": row.accuracy} for row in rows)
        return _json(total=total, sections=sections, malformed=score.malformed)
    width = max(len(row.name) for row in rows)
    lines = [f"{'section':<{width}}  right  of asked          skipped as unknown"]
    for row in rows:
        share = "-" if row.accuracy is None else f"{row.accuracy:.1%}"
        lines.append(
            f"{row.name:<{width}}  {row.correct:>5}  {row.correct + row.wrong:>8}  {share:>6}  {row.unknown:>18}"
        )
    if score.malformed:
        lines.append(_left_out(score.malformed, "four words"))
    return "\n".join(lines)


def report_pair_correlation(
    embeddings: Embeddings, path: str | Path, restrict: int | None = evaluation.RESTRICT, as_json: bool = False
) -> str:
    """Report the correlation of cosines with human similarity scores of word pairs (`--pairs FILE`)."""
    score = evaluation.evaluate_pairs(embeddings, path, restrict=restrict)
    if as_json:
        return _json(**dataclasses.asdict(score), unknown_share=score.unknown_share)
    left_out = "\n" + _left_out(score.malformed, "'word TAB word TAB score'") if score.malformed else ""
    have = "has" if score.unknown == 1 else "have"
    return (
        f"Spearman {score.spearman:.4f}, Pearson {score.pearson:.4f} over {score.pairs:,} pairs; {score.unknown:,} "
        f"more ({score.unknown_share:.1%} of all) {have} an unknown word{left_out}"
    )


def export(embeddings: Embeddings, path: str | Path, as_json: bool = False) -> str:
    """Write the table in the format of the file's suffix and report its size (`--export FILE`)."""
    embeddings.save(path)
    V, E = embeddings.vec_VE.shape
    return _json(path=str(path), words=V, numbers=E) if as_json else f"{V:,} words x {E} in {path}"


def _left_out(lines: int, wanted: str) -> str:
    if lines == 1:
        return f"1 line is not {wanted}; it is left out"
    return f"{lines:,} lines are not {wanted}; they are left out"


def _at_least_1(top: int) -> int:
    if top < 1:
        raise UserError(f"--top wants a number >= 1, got {top}")
    return top


def _pairs(scored: ScoredWords) -> list[dict[str, Any]]:
    return [{"word": word, "score": score} for word, score in scored]


def _json(**answer: Any) -> str:
    return json.dumps(answer)


def _table(scored: ScoredWords) -> str:
    width = max((len(word) for word, _ in scored), default=0)
    return "\n".join(f"{word:<{width}}  {score:.4f}" for word, score in scored)

"""README, docs/ and examples/: what they say can be run is run, and what they name is there.

A block with `<!-- run -->` on the line before it is run as it stands; `<!-- run, train.py with ARGUMENTS -->` appends
the arguments to its train.py commands, which makes them short. `<!-- file: NAME -->` writes a block to a file. The
blocks of a page run in its order, in one directory that has FILES and the repository's entries, without runs at first.
No pictures are drawn, which takes longer than such trainings.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from jaxlm.cli.sample_command import parse_sample
from jaxlm.cli.sweep_command import parse_sweep
from jaxlm.cli.train_command import parse_train
from tests import processes
from tests.conftest import NAMES, REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
ENTRIES = ("train.py", "sample.py", "configs", "docs", "examples", "benchmarks")
BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
APPENDING = """python() {{
    if [ "$1" = train.py ]; then set -- "$@" {}; fi
    if [ "$BASHPID" = "$$" ]; then command python "$@"; else exec python "$@"; fi
}}"""
"""A function of the shell: python with more arguments for train.py, in the background without a shell around it."""
MOST_WORDS = 1000
"""README's, code included."""

SENTENCES = (
    "the king and the queen rule the land near the water",
    "a man and a woman drink water with the prince",
    "the prince is the son of the king and the queen",
    "a woman gave the man bread and water",
)
DIALOGUE = "human: Hello, who are you?\nnetwork: Hello, I am here to help.\nhuman: Thank you!\nnetwork: Goodbye.\n"
FILES = {
    "names.txt": "\n".join(NAMES) + "\n",
    "book.txt": "\n".join(SENTENCES * 20) + "\n",
    "corpus.txt": "\n".join(SENTENCES * 100) + "\n",
    "dialogues.txt": "\n".join([DIALOGUE] * 40),
}


class Block(NamedTuple):
    """A fenced block, and the comment before it ("" without one)."""

    marker: str
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(found["marker"] or "", found["language"], found["code"])
        for found in BLOCK.finditer(page.read_text("utf-8"))
    ]


def run_block(block: Block, place: Path, env: dict[str, str]) -> None:
    """Run a block in a directory. Fails with all that it printed."""
    if block.marker.startswith("file: "):
        (place / block.marker.removeprefix("file: ")).write_text(block.code, "utf-8")
        return
    extra = block.marker.removeprefix("run").removeprefix(", train.py with")
    if block.language == "python":
        command = [sys.executable, "-W", "error", "-c", block.code]
    else:
        assert block.language == "bash", block
        script = APPENDING.format(f"--no-plots {extra}") + f"\n{block.code}"
        command = ["bash", "-euo", "pipefail", "-c", script]
    process = subprocess.Popen(
        command,
        cwd=place,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    done = processes.end(process)
    assert done.code == 0, f"{block.code}\n{done.stdout}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.marker for block in blocks(page))], ids=lambda page: page.stem
)
def test_blocks_that_say_that_they_can_run_do(page, tmp_path, tmp_path_factory):
    for name in ENTRIES:
        (tmp_path / name).symlink_to(REPOSITORY / name)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    env = processes.cli(tmp_path_factory).env
    path = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env = env | {"PATH": path, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": ""}
    for block in blocks(page):
        if block.marker:
            run_block(block, tmp_path, env)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_markers_stand_before_blocks_and_say_what_is_understood(page):
    text = page.read_text("utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(page))
    comments = re.findall(r"<!-- (.+?) -->\n", re.sub(BLOCK, lambda found: f"{found['marker'] or ''}\n", text))
    assert not comments, f"no block follows {comments}"
    for block in blocks(page):
        assert re.fullmatch(r"|run(, train\.py with -.+)?|file: [\w.]+", block.marker), block.marker
        if block.language == "python":
            compile(block.code, str(page), "exec")


def commands(page: Path) -> list[list[str]]:
    """The train.py and sample.py commands of a page's blocks and of its text in backquotes, those with placeholders
    in place of a config or a run left out; `name="..."` in a block is put in where it stands as $name.
    """
    spans = re.findall(r"`(python (?:train|sample)\.py [^`]+)`", re.sub(BLOCK, "", page.read_text("utf-8")))
    found = [shlex.split(span) for span in spans]
    for block in blocks(page):
        if block.language == "bash":
            code = block.code.replace("\\\n", " ")
            for name, value in re.findall(r'^(\w+)="([^"]*)"', code, re.MULTILINE):
                code = code.replace(f"${name}", " ".join(value.split()))
            found += [shlex.split(line, comments=True) for line in re.findall(r"python (?:train|sample)\.py .*", code)]
    return [command[1:] for command in found if re.match(r"(configs|runs)/\w+|\w+\.(py|bin)$", command[2])]


@pytest.mark.parametrize(
    ("page", "command"),
    [(page, command) for page in PAGES for command in commands(page) if not command[1].startswith("$")],
    ids=lambda value: value.stem if isinstance(value, Path) else " ".join(value)[:60],
)
def test_commands_have_settings_that_there_are(page, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    program, target, *options = command
    own = {block.marker.removeprefix("file: "): block.code for block in blocks(page) if block.marker[:5] == "file:"}
    if target in own:
        (tmp_path / target).write_text(own[target], "utf-8")
        target = str(tmp_path / target)
    if program == "sample.py":
        parse_sample([target, *options])
    elif any(option.startswith("--sweep") for option in options):
        parse_sweep([target, *options])
    elif "--help" in options:
        with pytest.raises(SystemExit) as ended:
            parse_train([target, *options])
        assert ended.value.code == 0
    else:
        assert parse_train([target, *options]) is not None


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page says after #, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", re.sub(BLOCK, "", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_files_are_there(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.is_file(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}"
    for path in re.findall(r"(?<![\w/.])((?:configs|examples|benchmarks|jaxlm|tests|docs)/[\w/.]*\w)(?![\w*])", text):
        assert (REPOSITORY / path).exists(), f"{page.name} names {path}"
    for module in re.findall(r"python -m (jaxlm[\w.]*\w)", text):
        place = REPOSITORY / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), f"{page.name} runs {module}"


def test_every_page_is_linked_from_readme():
    linked = set(re.findall(r"\(docs/(\w+)\.md\)", PAGES[0].read_text("utf-8")))
    assert linked == {page.stem for page in PAGES[1:]}


def test_readme_is_short():
    assert len(PAGES[0].read_text("utf-8").split()) <= MOST_WORDS


def config_figures() -> list[tuple[str, str]]:
    """Every config with the losses that its docstring gives, those of four digits."""
    found = []
    for config in sorted((REPOSITORY / "configs").glob("*.py")):
        docstring = config.read_text("utf-8").split('"""')[1]
        found += [(config.name, figure) for figure in re.findall(r"(?<![\d.])\d\.\d{4}(?!\d)", docstring) or [""]]
    return found


@pytest.mark.parametrize(("config", "figure"), config_figures())
def test_every_config_is_reproducible_with_its_figures(config, figure):
    page = (REPOSITORY / "docs" / "reproducing.md").read_text("utf-8")
    assert f"configs/{config}" in page or ("configs/names_*.py" in page and config.removesuffix(".py") in page)
    assert figure in page, f"{config} says {figure}, docs/reproducing.md does not"


def test_the_table_of_readme_is_that_of_the_leaderboard():
    leaderboard = {}
    for line in (REPOSITORY / "docs" / "reproducing.md").read_text("utf-8").splitlines():
        if line.startswith("names_"):
            run, _, dev, _, _, _, params, _, steps, *_ = line.split()
            leaderboard[run] = (params, dev, "counted" if steps == "1" else steps)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGES[0].read_text("utf-8").splitlines()]
    table = {row[0]: tuple(row[2:]) for row in rows if row and row[0].startswith("names_")}
    assert table == leaderboard
    assert set(table) == {config.stem for config in (REPOSITORY / "configs").glob("names_*.py")}


def test_the_picture_is_small():
    assert (REPOSITORY / "docs" / "images" / "models.png").stat().st_size < 150_000

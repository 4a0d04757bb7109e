"""What all tests share: the data beside the repository, tiny runs, and caches that are thrown away."""

import fcntl
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import pytest

import jaxlm
from jaxlm.data.corpus import Corpus
from jaxlm.devices import compilation
from jaxlm.runs import metrics
from jaxlm.training import train

FUSION_EMITTERS = jax.__version_info__ < compilation.DROPPED["xla_cpu_use_fusion_emitters"]
"""Whether XLA still has a flag for them: it aborts the process at one that it does not have."""
QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * FUSION_EMITTERS
)
"""Most of the tests' time is compilation, which users' options double; read when JAX first computes. The processes of
test_figures.py and test_resume.py compile as a user's do.
"""
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILATION}"
USERS_OPTIONS = compilation._known
MOST_MAPS = 25_000
"""Memory maps of a worker beyond which its programs are forgotten."""
REPOSITORY = Path(__file__).resolve().parent.parent
jax.config.update("jax_numpy_rank_promotion", "raise")
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
NAMES = [
    "emma",
    "olivia",
    "ava",
    "isabella",
    "sophia",
    "charlotte",
    "mia",
    "amelia",
    "harper",
    "evelyn",
    "abigail",
    "emily",
    "elizabeth",
    "mila",
    "ella",
    "avery",
    "sofia",
    "camila",
    "aria",
    "scarlett",
    "victoria",
    "madison",
    "luna",
    "grace",
    "chloe",
    "penelope",
    "layla",
    "riley",
    "zoey",
    "nora",
    "lily",
    "eleanor",
    "hannah",
    "lillian",
    "addison",
    "aubrey",
    "ellie",
    "stella",
    "natalie",
    "zoe",
    "leah",
    "hazel",
    "violet",
    "aurora",
    "savannah",
    "audrey",
    "brooklyn",
    "bella",
    "claire",
    "skylar",
]
"""Fifty lines: 40 of train, 5 of dev and 5 of test under the usual split."""
STRICT_ROOMS = ("ops", "models")
USES_ADAM = ("test_a_batch_is_learned_as_far_as_its_contexts_can_be_told_apart",)
TINY = jaxlm.MlpConfig(d_embed=4, d_hidden=16)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory_maps() -> Iterator[None]:
    """Forget compiled programs once they have many memory maps: each takes some, and Linux ends a compiler that
    asks for more than 65,530 in a process.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this session keeps compiled programs and everything under XDG_CACHE_HOME, subprocesses included."""
    cache = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(cache)
    os.environ["MPLCONFIGDIR"] = str(cache / "matplotlib")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache / "compiled")
    jax.config.update("jax_compilation_cache_dir", str(cache / "compiled"))
    compilation.enable_cache(cache)
    return cache


@pytest.fixture(scope="session", autouse=True)
def quick_options() -> Iterator[None]:
    """All programs of this process are compiled as QUICK_COMPILATION says, whatever they are for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilation, "_known", lambda **options: {})
        yield


@pytest.fixture(autouse=True)
def strict_types(request: pytest.FixtureRequest) -> Iterator[None]:
    """No implicit promotion of types in the rooms of mathematics and models: float32 stays what it is.

    Elsewhere optimisers run, and Optax's Adam raises a float to an integer's power; so do runs that a test trains.
    """
    room = request.path.relative_to(Path(__file__).parent).parts[0]
    trains = "make_run" in request.fixturenames or request.function.__name__ in USES_ADAM
    with jax.numpy_dtype_promotion("strict" if room in STRICT_ROOMS and not trains else "standard"):
        yield


@pytest.fixture
def users_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are compiled with the options that a user's process gives them."""
    monkeypatch.setattr(compilation, "_known", USERS_OPTIONS)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets beside the repository; the test is skipped where they are missing."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("wants ../shared/data")
    return path


def write_run(
    directory: Path,
    model: jaxlm.ModelConfig | None = None,
    *,
    text: str = "\n".join(NAMES),
    data: dict[str, Any] | None = None,
    name: str = "run",
    **settings: Any,
) -> Path:
    """Train a tiny run in directory/name on a text of its own; `data` and `settings` override DataConfig, RunConfig.

    No pictures are drawn, which takes a process longer than the training: test_plots.py and test_cli_train.py do that.
    Returns the run directory. The same name again resumes, or finds the run done.
    """
    path = directory / "text.txt"
    path.write_text(text, "utf-8", newline="")
    sample = jaxlm.SampleConfig(n=3, max_tokens=20)
    defaults: dict[str, Any] = {"steps": 20, "batch_size": 8, "plots": False, "sample": sample}
    config = jaxlm.RunConfig(
        model=model or TINY,
        data=jaxlm.DataConfig(**{"path": str(path)} | (data or {})),
        run_dir=str(directory / name),
        **defaults | settings,
    )
    train(config, log=lambda line: None)
    return directory / name


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`write_run` in this test's own directory: make_run(model, text=..., name=..., data={...}, steps=20, ...)."""

    def make(model: jaxlm.ModelConfig | None = None, **settings: Any) -> Path:
        return write_run(tmp_path, model, **settings)

    return make


@pytest.fixture
def log(tmp_path: Path) -> Iterator[metrics.MetricsLog]:
    """The log of metrics.jsonl in this test's own directory."""
    log = metrics.MetricsLog(tmp_path / "metrics.jsonl")
    yield log
    log.close()


def opened(model_config: jaxlm.ModelConfig, data: jaxlm.DataConfig, corpus: Corpus, context: int = 16) -> jaxlm.Run:
    """A run in memory: a count model of the corpus, or a model that is not trained."""
    config = jaxlm.RunConfig(model=model_config, data=data, steps=1)
    model: Any = model_config.filled(corpus.tokenizer.vocab_size, context).build()
    if model_config.trained_by_steps:
        params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    else:
        params = model.fit(corpus.tokens_N, corpus.age_N)[0]
    return jaxlm.Run(Path(), config, corpus.tokenizer, model, params, 1)


def _read_only(factory: pytest.TempPathFactory, name: str, model: jaxlm.ModelConfig, **settings: Any) -> jaxlm.Run:
    """A finished run on NAMES that the workers of this session share; the first to come trains it."""
    base = factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"read_only_{name}"
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "run" / "eval.json").exists():
            write_run(directory, model, **settings)
    return jaxlm.load_run(directory / "run")


@pytest.fixture(scope="session")
def mlp_run(caches: Path, tmp_path_factory: pytest.TempPathFactory) -> jaxlm.Run:
    """One finished run of an MLP, to read only."""
    return _read_only(tmp_path_factory, "mlp", TINY)


@pytest.fixture(scope="session")
def counts_run(caches: Path, tmp_path_factory: pytest.TempPathFactory) -> jaxlm.Run:
    """One finished run of a trigram with add_k = 0, to read only."""
    return _read_only(tmp_path_factory, "counts", jaxlm.CountsConfig(order=3, add_k=0.0))


@pytest.fixture(scope="session")
def stream_run(caches: Path, tmp_path_factory: pytest.TempPathFactory) -> jaxlm.Run:
    """One finished run of a trigram with add_k = 0 on running text, to read only."""
    return _read_only(tmp_path_factory, "stream", jaxlm.CountsConfig(order=3, add_k=0.0), data={"kind": "stream"})

"""Settings of a transformer: sizes, the form of its blocks, and how they are computed."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, Self

from jaxlm.config import check
from jaxlm.config.models import PositionsConfig
from jaxlm.config.rope import RopeConfig
from jaxlm.config.settings import refuse_unused
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.models.base import SequenceModel

FF_MULTIPLE = 64
"""The width inside a swiglu MLP is a multiple of this where it is not given."""


@dataclasses.dataclass(frozen=True)
class TransformerConfig(PositionsConfig):
    """Sizes of a transformer and the form of its blocks; the defaults are GPT-2's."""

    n_layers: int = 4
    """Number of blocks."""
    n_heads: int = 4
    """Attention heads of a block; they divide d_model, unless d_head says how wide they are."""
    d_model: int = 64
    """Width of the residual stream."""
    dropout: float = 0.0
    """Share of embeddings, attention weights and blocks' outputs dropped in training."""
    n_kv_heads: int | None = None
    """Heads of keys and values, each read by n_heads / n_kv_heads heads of queries. None: n_heads."""
    d_head: int | None = None
    """Width of a head. None: d_model / n_heads."""
    d_ff: int | None = None
    """Width inside an MLP. None: 4 d_model, with swiglu 8/3 d_model up to a multiple of 64 (as many parameters)."""
    norm: Literal["layer", "rms"] = "layer"
    """layer: LayerNorm. rms: division by the root mean square. Both with a learned scale."""
    norm_eps: float = 1e-5
    """Added to the variance, or the mean square, that a norm divides by the root of."""
    positions: Literal["learned", "rotary", "none"] = "learned"
    """learned: a table that is added to the embeddings. rotary: queries and keys are turned by their positions."""
    rope_base: float = 10_000.0
    """rotary: the slowest pair of numbers turns by about 1 / rope_base a position."""
    rope: RopeConfig = dataclasses.field(default_factory=RopeConfig)
    """rotary: how the rates are scaled for a longer context than that of the first training."""
    activation: Literal["gelu", "swiglu", "relu2"] = "gelu"
    """gelu: by tanh. swiglu: silu(x W) * (x V), three matrices. relu2: relu(x W) ** 2."""
    bias: bool = True
    """Biases of products and of LayerNorm."""
    qkv_bias: bool = False
    """Without `bias`: biases of queries, keys and values nevertheless, as in Qwen2."""
    qk_norm: bool = False
    """Divide each query and key by its root mean square, after rotary positions, without a learned scale."""
    attention_softcap: float | None = None
    """Scores of attention go through c tanh(s / c), and so stay below c. None: as they are."""
    window_pattern: str = "L"
    """The tokens that each layer sees, repeated over the layers, as SSSL. L: all tokens so far. S: the last `window`.
    The last layer always sees all."""
    window: int | None = None
    """Tokens that a layer S sees, the token itself included. None: half the context."""
    embed_norm: bool = False
    """Divide each embedded token by its root mean square."""
    residual_scalars: bool = False
    """Each block reads a x + b x0 in place of the stream x: x0 are the embedded tokens, a and b are learned."""
    zero_init: bool = False
    """Start the matrices that write to the stream at 0, so that every block starts as the identity."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The type of products and of the stream. Parameters, moments, norms, softmax and losses stay float32."""
    remat: Literal["none", "activations", "products", "blocks"] = "activations"
    """Values that are computed again for the gradient, to save memory.
    activations: norms and activation functions, and nothing on a CPU. products: all but products with weights.
    blocks: everything inside a block."""
    scan: bool | None = None
    """Layers as a loop of one compiled block, or one after the other. None: a loop beyond 4 layers, 8 on a CPU."""
    attention: Literal["auto", "plain", "flash"] = "auto"
    """flash: the device's fused kernel. plain: products and a softmax. auto: flash where it can be."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.at_least("model.n_layers", self.n_layers, 1)
        check.at_least("model.n_heads", self.n_heads, 1)
        check.at_least("model.d_model", self.d_model, 1)
        check.between("model.dropout", self.dropout, 0, 1)
        check.at_least("model.n_kv_heads", self.n_kv_heads, 1)
        check.at_least("model.d_head", self.d_head, 1)
        check.at_least("model.d_ff", self.d_ff, 1)
        check.between("model.norm_eps", self.norm_eps, 1e-12, 1)
        check.more_than("model.rope_base", self.rope_base, 1)
        check.more_than("model.attention_softcap", self.attention_softcap, 0)
        check.at_least("model.window", self.window, 1)
        if self.d_head is None and self.d_model % self.n_heads:
            raise UserError(f"model.d_model wants a multiple of the {self.n_heads} heads, got {self.d_model}")
        if self.n_heads % self.kv_heads:
            raise UserError(
                f"model.n_kv_heads wants a divisor of the {self.n_heads} heads of queries, got {self.n_kv_heads}"
            )
        if not self.window_pattern or set(self.window_pattern) - {"S", "L"}:
            raise UserError(f"model.window_pattern wants letters S and L, as SSSL, got {self.window_pattern!r}")
        if self.positions == "rotary" and self.head_width % 2:
            width = "model.d_model" if self.d_head is None else "model.d_head"
            raise UserError(
                f"{width} wants heads of an even width for model.positions rotary, got {self.n_heads} heads of width "
                f"{self.head_width}"
            )
        if self.positions != "rotary":
            refuse_unused(self, ("rope_base",), f"model.positions {self.positions}", "model.positions rotary")
            refuse_unused(self.rope, ("scaling",), f"model.positions {self.positions}", "model.positions rotary")
        if self.bias:
            refuse_unused(self, ("qkv_bias",), "model.bias True", "model.bias False")
        if "S" not in self.window_pattern:
            refuse_unused(self, ("window",), f"model.window_pattern {self.window_pattern}", "model.window_pattern SSSL")

    @property
    def head_width(self) -> int:
        """Numbers in a query, a key or a value of one head."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def ff_width(self) -> int:
        """Width inside an MLP."""
        if self.d_ff is not None:
            return self.d_ff
        if self.activation != "swiglu":
            return 4 * self.d_model
        return -(-8 * self.d_model // (3 * FF_MULTIPLE)) * FF_MULTIPLE

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Tokens that each layer sees, the token itself included; None: all so far."""
        short = self.window or max(1, (self.context or 2) // 2)
        pattern = self.window_pattern
        seen = [short if pattern[i % len(pattern)] == "S" else None for i in range(self.n_layers)]
        return (*seen[:-1], None)

    @property
    def value_layers(self) -> tuple[bool, ...]:
        """True for each layer that has value embeddings."""
        return (False,) * self.n_layers


@dataclasses.dataclass(frozen=True)
class GptConfig(TransformerConfig):
    """A transformer from tokens to logits. By default GPT-2's; `llama` and `modern` are other forms."""

    tied: bool = False
    """Compute the logits with the token embeddings, in place of an unembedding of their own."""
    logit_softcap: float | None = None
    """Logits go through c tanh(z / c), and so stay below c. None: as they are."""
    value_embeds: bool = False
    """Every other layer, the last one included, adds a learned vector of the token to its values, by a gate a head."""
    documents: bool = False
    """EOS begins a new document, whose tokens see none before it. False: a row is one text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.more_than("model.logit_softcap", self.logit_softcap, 0)

    @classmethod
    def gpt2(cls, **settings: Any) -> Self:
        """GPT-2's form (Radford et al. 2019): the defaults with tied embeddings. `settings` are added or take over."""
        return cls(**{"tied": True, **settings})

    @classmethod
    def llama(cls, **settings: Any) -> Self:
        """Llama's form (Touvron et al. 2023): RMSNorm, rotary positions, SwiGLU, no biases, untied."""
        form = {"norm": "rms", "positions": "rotary", "activation": "swiglu", "bias": False}
        return cls(**{**form, **settings})

    @classmethod
    def modern(cls, **settings: Any) -> Self:
        """The form of nanochat and modded-nanogpt: RMSNorm, rotary positions, squared ReLU, no biases, QK-norm, normed
        embeddings, zero-initialised outputs, residual scalars, value embeddings, logits capped at 15.
        """
        form = {
            "norm": "rms",
            "positions": "rotary",
            "activation": "relu2",
            "bias": False,
            "qk_norm": True,
            "embed_norm": True,
            "zero_init": True,
            "residual_scalars": True,
            "value_embeds": True,
            "logit_softcap": 15.0,
        }
        return cls(**{**form, **settings})

    @property
    def value_layers(self) -> tuple[bool, ...]:
        """True for each layer that has value embeddings."""
        last = self.n_layers - 1
        return tuple(self.value_embeds and (last - i) % 2 == 0 for i in range(self.n_layers))

    def build(self) -> "SequenceModel":
        """The model of these settings."""
        from jaxlm.models.gpt import build

        return build(self)

"""Shape of the network and its presets."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from workbench.folder import InputError, check_known, find_run, made, read_json
from workbench.model.recurrence import RecurrenceConfig
from workbench.model.rotary import RopeScaling
from workbench.model.value_residual import ValueResidualConfig

LARGEST = sys.float_info.max
MECHANISMS = {
    "value_residual": ValueResidualConfig,
    "recurrence": RecurrenceConfig,
    "rope_scaling": RopeScaling,
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the network. Derived sizes are properties, so they cannot disagree.

    The defaults are the Parameter Golf baseline; the presets ``llama``, ``qwen2`` and ``qwen3``
    show which fields make those families.
    """

    n_layer: int = 9  # blocks; in a mixed stream the first half of visits feeds skips to the rest
    n_head: int = 8  # query heads
    n_kv_head: int = 4  # key and value heads, each shared by n_head / n_kv_head query heads
    d_model: int = 512  # channels of the residual stream
    vocab_size: int = 1024
    feedforward_multiple: int = 2  # hidden width of the feed-forward, in units of d_model
    tie_embeddings: bool = True  # the output head is the embedding
    rope_base: float = 10000.0
    softcap: float | None = 30.0  # logits are softcap * tanh(z / softcap); None: unbounded
    output_bias: bool = False  # one learned logit offset a token
    value_residual: ValueResidualConfig | None = None
    recurrence: RecurrenceConfig | None = None  # of some blocks; None: each runs once
    head_width: int | None = None  # channels of a head; None: d_model / n_head
    feedforward_width: int | None = None  # hidden width in place of feedforward_multiple
    feedforward: Literal["relu2", "swiglu"] = "relu2"  # squared ReLU, or SiLU(gate) * in
    norm_eps: float | None = None  # of RMS norms with learned weights; None: norms without
    query_key: Literal["gained", "learned", "plain"] = "gained"  # norm and gain, learned norm, none
    attention_bias: bool = False  # of queries, keys and values
    stream: Literal["mixed", "plain"] = "mixed"  # embedding norm and mix, scaled writes, skips
    rope_direction: Literal[-1, 1] = -1  # heads turn by this times the angle
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(ModelConfig).items():
            value = getattr(self, name)
            allowed = get_args(kind)
            if get_origin(kind) is Literal and value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
            is_count = kind is int or (int in allowed and value is not None)
            if is_count and (type(value) is not int or value < 1):  # nor true, which counts as 1
                raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
            is_size = kind is float or (float in allowed and value is not None)
            if is_size and not (isinstance(value, int | float) and 0 < value <= LARGEST):
                raise ValueError(f"{name} must be positive and finite, got {value!r}")
        if self.head_width is None and self.d_model % self.n_head:
            raise ValueError(f"n_head {self.n_head} does not divide d_model {self.d_model}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_kv_head {self.n_kv_head} does not divide n_head {self.n_head}")
        if self.d_head % 2:
            raise ValueError(f"d_head {self.d_head} must be even for the rotary embedding")
        if self.recurrence is not None and self.recurrence.last >= self.n_layer:
            raise ValueError(f"recurrence to block {self.recurrence.last} of {self.n_layer}")
        if self.query_key == "learned" and self.norm_eps is None:
            raise ValueError("query_key learned needs norm_eps")

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.head_width or self.d_model // self.n_head

    @property
    def d_query(self) -> int:
        """Width of all queries together."""
        return self.n_head * self.d_head

    @property
    def d_key_value(self) -> int:
        """Width of all keys (or all values) together."""
        return self.n_kv_head * self.d_head

    @property
    def d_feedforward(self) -> int:
        """Hidden width of the feed-forward."""
        return self.feedforward_width or self.feedforward_multiple * self.d_model

    @property
    def visits(self) -> tuple[int, ...]:
        """The block of every visit, in order of execution."""
        once = tuple(range(self.n_layer))
        return once if self.recurrence is None else self.recurrence.blocks(self.n_layer)

    @property
    def passes(self) -> int:
        """How often the blocks that recur run; 1 where none does."""
        return 1 if self.recurrence is None else self.recurrence.passes

    @property
    def n_encoder(self) -> int:
        """How many visits come before the skips turn round."""
        return len(self.visits) // 2

    @property
    def n_skip(self) -> int:
        """How many skips connect the first half with the second."""
        n_visit = len(self.visits)
        return min(self.n_encoder, n_visit - self.n_encoder) if self.stream == "mixed" else 0


_LLAMA = ModelConfig(
    n_layer=4,
    n_head=4,
    n_kv_head=2,
    d_model=128,
    softcap=None,
    feedforward_width=352,
    feedforward="swiglu",
    norm_eps=1e-5,
    query_key="plain",
    stream="plain",
    rope_direction=1,
)
_QWEN2 = replace(_LLAMA, norm_eps=1e-6, rope_base=1e6, attention_bias=True)

PRESETS: dict[str, ModelConfig] = {
    "baseline": ModelConfig(),  # the Parameter Golf baseline at its size
    "demo": ModelConfig(  # a CPU-sized baseline with a value residual
        n_layer=4, n_head=4, n_kv_head=2, d_model=128, value_residual=ValueResidualConfig()
    ),
    "llama": _LLAMA,  # CPU-sized, as are the next two
    "qwen2": _QWEN2,
    "qwen3": replace(_QWEN2, attention_bias=False, query_key="learned", head_width=64),
}


def preset(name: str, *, parent: str = "", **overrides: Any) -> ModelConfig:
    """Take a preset, or the configuration of a run, and replace some of its fields.

    Parameters
    ----------
    name : str
        Key of `PRESETS`.
    parent : str
        Run to take the configuration of instead.
    **overrides
        Fields of `ModelConfig`; those of `MECHANISMS` may be a dict, None, or True for the defaults
        of one that has them.

    Raises
    ------
    InputError
        For an unknown preset or field (the nearest are named), or sizes that do not fit.

    Examples
    --------
    >>> preset("demo", d_model=64).d_head
    16
    """
    check_known([name], PRESETS, what="preset")
    check_known(overrides, [each.name for each in fields(ModelConfig)], what="model field")
    for key in MECHANISMS.keys() & overrides.keys():
        overrides[key] = _mechanism(key, overrides[key])
    base = from_json(read_json(find_run(parent).path / "model.json")) if parent else PRESETS[name]
    try:
        return replace(base, **overrides)
    except (TypeError, ValueError) as error:
        raise InputError(
            "model", expected="sizes that fit", found=str(error), remedy="Change the field."
        ) from error


def _mechanism(name: str, value: Any) -> Any:
    """Read the configuration of a mechanism from JSON or YAML."""
    kind = MECHANISMS[name]
    if value is None or value is False:
        return None
    if isinstance(value, kind):
        return value
    return made(kind, {} if value is True else value, what=f"model field {name!r}")


def to_json(config: ModelConfig) -> dict[str, Any]:
    """Return the configuration as plain values for a JSON file."""
    return asdict(config)


def from_json(values: Mapping[str, Any]) -> ModelConfig:
    """Read a configuration back from its JSON form."""
    return preset("baseline", **dict(values))

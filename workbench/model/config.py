"""Shape of the network and its presets."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from workbench.folder import InputError, find_run, nearest, read_json
from workbench.model.value_residual import ValueResidualConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the network. Derived sizes are properties, so they cannot disagree."""

    n_layer: int = 9  # blocks; the first half feeds skips to the second
    n_head: int = 8  # query heads
    n_kv_head: int = 4  # key and value heads, each shared by n_head / n_kv_head query heads
    d_model: int = 512  # channels of the residual stream
    vocab_size: int = 1024
    feedforward_multiple: int = 2  # hidden width of the feed-forward, in units of d_model
    tie_embeddings: bool = True  # the output head is the embedding
    rope_base: float = 10000.0
    softcap: float = 30.0  # logits are softcap * tanh(z / softcap)
    output_bias: bool = False  # one learned logit offset a token
    value_residual: ValueResidualConfig | None = None

    def __post_init__(self) -> None:
        counts = ("n_layer", "n_head", "n_kv_head", "d_model", "vocab_size", "feedforward_multiple")
        for name in counts:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
        if self.d_model % self.n_head:
            raise ValueError(f"n_head {self.n_head} does not divide d_model {self.d_model}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_kv_head {self.n_kv_head} does not divide n_head {self.n_head}")
        if self.d_head % 2:
            raise ValueError(f"d_head {self.d_head} must be even for the rotary embedding")
        if not (0 < self.softcap < math.inf and 0 < self.rope_base < math.inf):
            raise ValueError(
                f"softcap {self.softcap} and rope_base {self.rope_base} must be positive and finite"
            )

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_head

    @property
    def d_key_value(self) -> int:
        """Width of all keys (or all values) together."""
        return self.n_kv_head * self.d_head

    @property
    def d_feedforward(self) -> int:
        """Hidden width of the feed-forward."""
        return self.feedforward_multiple * self.d_model

    @property
    def n_encoder(self) -> int:
        """How many blocks come before the skips turn round."""
        return self.n_layer // 2

    @property
    def n_skip(self) -> int:
        """How many skips connect the first half with the second."""
        return min(self.n_encoder, self.n_layer - self.n_encoder)


PRESETS: dict[str, ModelConfig] = {
    "baseline": ModelConfig(),  # the Parameter Golf baseline at its size
    "demo": ModelConfig(  # a CPU-sized baseline with a value residual
        n_layer=4, n_head=4, n_kv_head=2, d_model=128, value_residual=ValueResidualConfig()
    ),
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
        Fields of `ModelConfig`; `value_residual` may be a dict, True (its defaults) or None.

    Raises
    ------
    InputError
        For an unknown preset or field (the nearest are named), or sizes that do not fit.

    Examples
    --------
    >>> preset("demo", d_model=64).d_head
    16
    """
    if name not in PRESETS:
        raise InputError(
            f"preset {name!r}",
            expected="a known preset",
            found=repr(name),
            remedy=nearest(name, list(PRESETS)),
        )
    known = [field.name for field in fields(ModelConfig)]
    for key in overrides:
        if key not in known:
            raise InputError(
                f"model field {key!r}",
                expected="a field of ModelConfig",
                found=repr(key),
                remedy=nearest(key, known),
            )
    if "value_residual" in overrides:
        overrides["value_residual"] = _value_residual(overrides["value_residual"])
    base = from_json(read_json(find_run(parent).path / "model.json")) if parent else PRESETS[name]
    try:
        return replace(base, **overrides)
    except (TypeError, ValueError) as error:
        raise InputError(
            "model", expected="sizes that fit", found=str(error), remedy="Change the field."
        ) from error


def _value_residual(value: Any) -> ValueResidualConfig | None:
    """Read the mechanism's configuration from JSON or YAML."""
    if value is None or value is False:
        return None
    if isinstance(value, ValueResidualConfig):
        return value
    try:
        return ValueResidualConfig(**({} if value is True else dict(value)))
    except (TypeError, ValueError) as error:
        raise InputError(
            "model field 'value_residual'",
            expected="null, true, or fields of ValueResidualConfig",
            found=str(error),
            remedy="Fields: " + ", ".join(f.name for f in fields(ValueResidualConfig)) + ".",
        ) from error


def to_json(config: ModelConfig) -> dict[str, Any]:
    """Return the configuration as plain values for a JSON file."""
    return asdict(config)


def from_json(values: Mapping[str, Any]) -> ModelConfig:
    """Read a configuration back from its JSON form."""
    return preset("baseline", **dict(values))

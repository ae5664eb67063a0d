"""What a Hugging Face config.json says of a network, what it leaves unsaid, and what we refuse."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from workbench.folder import InputError
from workbench.model.config import PRESETS, ModelConfig
from workbench.model.rotary import RopeScaling

FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
FIELDS = {  # key of config.json: field of ModelConfig
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_kv_head",
    "intermediate_size": "feedforward_width",
    "head_dim": "head_width",
    "rope_theta": "rope_base",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
}
DEFAULTS = {"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
ONLY = {  # setting: the one value that the network computes, which is also what absence means
    "quantization_config": None,
    "hidden_act": "silu",
    "mlp_bias": False,
    "attention_bias": False,
    "use_sliding_window": False,
    "use_mrope": False,
    "partial_rotary_factor": 1.0,
}
SCALINGS = {  # type of rope scaling: its keys, and the fields of RopeScaling
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
        "original_max_position_embeddings": "original_context",
    },
}
LAYER = r"^model\.layers\.\d+\.self_attn\."
SIGNS = {  # family: names that only its tensors have; the first that is found counts
    "mamba": r"mixer\.(in|out)_proj",
    "rwkv": r"rwkv\.blocks\.|^blocks\.0\.att\.",
    "gpt-neox": r"gpt_neox\.",
    "opt": r"model\.decoder\.layers\.",
    "bert": r"bert\.|encoder\.layer\.",
    "phi3": rf"{LAYER}qkv_proj",
    "qwen3": rf"{LAYER}q_norm",
    "qwen2": rf"{LAYER}q_proj\.bias",
    "llama": rf"{LAYER}q_proj",
    "gpt2": r"transformer\.h\.|^h\.\d+\.attn",
}
ENCODER = re.compile("bert|electra|mpnet|ForMaskedLM|EncoderModel", re.IGNORECASE)
ELSEWHERE = (
    "It cannot be computed here; take the unquantised original, or probe it with foreign.adapt."
)
HINTS = {
    **dict.fromkeys(("arch-setting", "arch-rope", "arch-dtype"), ELSEWHERE),
    "arch-003": "Complete config.json from the model's own repository; nothing is guessed.",
    "arch-007": "Name a causal language model: Llama, Mistral, Qwen2 or Qwen3.",
    "arch-unsupported": "Other families compute something else; their weights would mean nothing.",
    "arch-family": "Loaded so, weights would be left out in silence. Correct model_type and "
    "architectures in config.json, or take the weights that belong to it.",
    "export-field": "No family there computes this; begin from preset llama, qwen2 or qwen3.",
}
LISTED = 8  # problems told in a message; all are in `ArchMismatch.fields`


def problem(rule_id: str, name: str, expected: Any, found: Any) -> dict[str, Any]:
    """Describe one thing that disagrees."""
    return {"rule_id": rule_id, "name": name, "expected": expected, "found": found}


class ArchMismatch(InputError):
    """A checkpoint that is not what its metadata says, or that the network cannot compute.

    Parameters
    ----------
    where : object
        File or folder at fault.
    problems : sequence of mapping
        See `problem`; kept as `fields`. The rule of the first is the `rule_id` of all.
    family_found, family_expected : str
        What the names of the tensors say, and the metadata.
    hf_architecture : str
        Class that the metadata names.
    """

    def __init__(
        self,
        where: object,
        problems: Sequence[Mapping[str, Any]],
        *,
        family_found: str = "",
        family_expected: str = "",
        hf_architecture: str = "",
    ) -> None:
        self.rule_id, self.fields = str(problems[0]["rule_id"]), tuple(problems)
        self.family_found, self.family_expected = family_found, family_expected
        self.hf_architecture = hf_architecture
        self.hint = HINTS.get(self.rule_id, "Restore the files, or correct the metadata.")
        told = [f"{p['name']} {p['found']}, not {p['expected']}" for p in problems[:LISTED]]
        more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        super().__init__(
            where,
            expected="a checkpoint whose parts agree, of a shape that the network has",
            found=f"{'; '.join(told + more)} [{self.rule_id}]",
            remedy=self.hint,
        )


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What metadata says of a network."""

    family: str  # llama, qwen2 or qwen3
    hf_architecture: str
    values: dict[str, Any]  # key of `FIELDS`: value; absent where required and not stated
    sources: dict[str, str]  # field of ModelConfig: where its value comes from
    rope_scaling: RopeScaling | None
    problems: list[dict[str, Any]]  # what stands against it

    def model_config(self, **values: Any) -> ModelConfig:
        """Make the configuration, with other values for some keys of `FIELDS`."""
        ours = {FIELDS[key]: value for key, value in (self.values | values).items()}
        return replace(PRESETS[self.family], **ours, rope_scaling=self.rope_scaling)


def claims(
    config: Mapping[str, Any], names: Iterable[str], *, where: object, context: int | None = None
) -> Claims:
    """Read config.json; its family must agree with the names of the tensors.

    A window of attention that is no shorter than the `context` to be used [token] is none.

    Raises
    ------
    ArchMismatch
        For an encoder, for a family that the network cannot compute, or where metadata and
        tensor names say different families.
    """
    kind, architecture = _kind(config, family_of(names), where)
    family = FAMILIES[kind]
    ropes = [config.get(key) or {} for key in ("rope_parameters", "rope_scaling")]
    odd = [each for each in ropes if not isinstance(each, dict)]
    rope = odd[0] if odd else {**ropes[0], **ropes[1]}
    said = {**config, **({} if odd else rope)}
    values = {key: said[key] for key in FIELDS if said.get(key) is not None}
    sources = {each.name: f"{family.capitalize()} architecture" for each in fields(ModelConfig)}
    sources |= {FIELDS[key]: "config.json" for key in values} | {"feedforward_multiple": "unused"}
    defaults = {**DEFAULTS, "head_dim": 128 if family == "qwen3" else None}
    if kind == "llama" and "num_attention_heads" in values:
        defaults["num_key_value_heads"] = values["num_attention_heads"]
    for key in defaults.keys() - values.keys():
        values[key], sources[FIELDS[key]] = defaults[key], f"{family.capitalize()} default"
    scaling, problems = _rope_scaling(rope)
    if scaling is not None:
        sources["rope_scaling"] = "config.json"
    missing = [
        problem("arch-003", key, "a value", "nothing") for key in FIELDS if key not in values
    ]
    for key in values.keys() - DEFAULTS.keys():
        if type(values[key]) not in (int, type(None)):  # nor true, which counts as 1
            problems.append(problem("arch-config", key, "a whole number", values[key]))
    bases = [] if odd else [one["rope_theta"] for one in (config, *ropes) if one.get("rope_theta")]
    if any(each != bases[0] for each in bases):
        problems.append(problem("arch-config", "rope_theta", "one value", bases))
    return Claims(
        family=family,
        hf_architecture=architecture,
        values=values,
        sources=sources,
        rope_scaling=scaling,
        problems=missing + problems + _unable(said, kind, context),
    )


def family_of(names: Iterable[str]) -> str:
    """Tell the family from the names of tensors; ``unknown`` where none fits.

    Examples
    --------
    >>> family_of(["transformer.h.0.attn.c_attn.weight"])
    'gpt2'
    """
    text = "\n".join(names)
    found = (family for family, sign in SIGNS.items() if re.search(sign, text, re.MULTILINE))
    return next(found, "unknown")


def architecture_of(config: Mapping[str, Any]) -> str:
    """Name the class that metadata says a checkpoint is of; empty where it says none."""
    classes = config.get("architectures")
    return str(classes[0]) if isinstance(classes, list) and classes else ""


def _kind(config: Mapping[str, Any], by_name: str, where: object) -> tuple[str, str]:
    """Return the kind of model, a key of `FAMILIES`, and the class that metadata names."""
    architecture = architecture_of(config)
    stated = str(config.get("model_type") or "")
    sizes = [f"{k} {config.get(k)}" for k in ("hidden_size", "num_hidden_layers", "vocab_size")]
    raw = f"metadata '{architecture} {stated}' ({', '.join(sizes)})"
    named = {each for each in (stated, architecture.removesuffix("ForCausalLM").lower()) if each}
    named = named or {by_name}
    kind, expected = min(named), ", ".join(FAMILIES)
    if (by_name, FAMILIES.get(kind)) == ("qwen2", "llama") and config.get("attention_bias"):
        by_name = "llama"  # a setting, which is told of below
    if ENCODER.search(f"{stated} {architecture}") or config.get("is_encoder_decoder"):
        broken = problem("arch-007", "Encoder", "a decoder-only model", raw)
    elif not named <= FAMILIES.keys():
        broken = problem("arch-unsupported", "family", expected, f"{by_name}, {raw}")
    elif len(named) > 1 or by_name not in (FAMILIES[kind], "unknown"):
        expected = FAMILIES[kind]
        broken = problem("arch-family", "tensor names", f"{expected}, as in {raw}", by_name)
    else:
        return kind, architecture
    raise ArchMismatch(
        where,
        [broken],
        family_found=by_name,
        family_expected=expected,
        hf_architecture=architecture,
    )


def _rope_scaling(rope: Any) -> tuple[RopeScaling | None, list[dict[str, Any]]]:
    """Read the scaling of the rotary embedding; what we do not compute is a problem."""
    try:
        if any(isinstance(each, dict) for each in rope.values()):
            raise TypeError("other frequencies in other layers")
        kinds: set[Any] = {rope.get(key) or "default" for key in ("rope_type", "type")} - {
            "default"
        }
        if not kinds:
            return None, []
        (kind,) = kinds
        stated = {ours: rope[key] for key, ours in SCALINGS[kind].items()}
        return RopeScaling(type=kind, **stated), []
    except (AttributeError, KeyError, TypeError, ValueError):
        return None, [problem("arch-rope", "rope_scaling", f"one of {list(SCALINGS)}", rope)]


def _unable(said: Mapping[str, Any], kind: str, context: int | None) -> list[dict[str, Any]]:
    """List the settings under which the network would compute something else."""
    found = [
        problem("arch-setting", key, value, said[key])
        for key, value in ONLY.items()
        if said.get(key, value) not in (value, None) and (kind, key) != ("qwen2", "attention_bias")
    ]
    window = said.get("sliding_window", 4096) if kind == "mistral" else None
    if window is not None and not (isinstance(window, int) and 0 < (context or 0) <= window):
        wanted = f"at least the sequence_length, {context or 'not stated'}"
        found.append(problem("arch-setting", "sliding_window", wanted, window))
    layers = said.get("layer_types") or []
    if not isinstance(layers, list) or any(each != "full_attention" for each in layers):
        found.append(problem("arch-setting", "layer_types", "full_attention", layers))
    tied = said.get("tie_word_embeddings")
    if not isinstance(tied, bool | None):
        found.append(problem("arch-tie", "tie_word_embeddings", "true or false", tied))
    return found


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """Write a configuration as config.json says it, in the family that it belongs to.

    Raises
    ------
    ArchMismatch
        If it belongs to none; names the fields that stand in the way.
    """
    free = {*FIELDS.values(), "feedforward_multiple", "rope_scaling"}
    fixed = [each.name for each in fields(ModelConfig) if each.name not in free]
    against = {
        family: [
            problem("export-field", name, getattr(PRESETS[family], name), getattr(config, name))
            for name in fixed
            if getattr(PRESETS[family], name) != getattr(config, name)
        ]
        for family in FAMILIES.values()
    }
    family = min(against, key=lambda each: len(against[each]))
    if config.norm_eps is None:
        against[family].append(problem("export-field", "norm_eps", "a number", None))
    if against[family]:
        raise ArchMismatch("model", against[family], family_expected=family)
    written = {key: getattr(config, name) for key, name in FIELDS.items()}
    written |= {"intermediate_size": config.d_feedforward, "head_dim": config.d_head}
    written |= {"model_type": family, "architectures": [f"{family.capitalize()}ForCausalLM"]}
    written |= {"hidden_act": "silu"}
    if config.rope_scaling is not None:
        kind = config.rope_scaling.type
        stated = {key: getattr(config.rope_scaling, ours) for key, ours in SCALINGS[kind].items()}
        written["rope_scaling"] = {"rope_type": kind, **stated}
    return written

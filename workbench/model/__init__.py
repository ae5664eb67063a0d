"""Configuration, network, sites and checkpoints."""

from workbench.model.adapter import Adapter, adapt
from workbench.model.checkpoint import (
    assemble,
    config_from_state,
    load_model,
    load_state,
    read_state,
    save_model,
    save_state,
    starting_point,
    state,
)
from workbench.model.config import PRESETS, ModelConfig, from_json, preset, to_json
from workbench.model.foreign import Foreign
from workbench.model.huggingface import read_huggingface, write_huggingface
from workbench.model.huggingface_config import ArchMismatch, family_of
from workbench.model.network import Matrix, Network, n_parameter, new_network, rms_norm
from workbench.model.parameter_golf import read_parameter_golf, write_parameter_golf
from workbench.model.preflight import init_loss_verdict, preflight_tokenizer
from workbench.model.rotary import RopeScaling
from workbench.model.sites import record
from workbench.model.value_residual import ValueResidualConfig

__all__ = [
    "PRESETS",
    "Adapter",
    "ArchMismatch",
    "Foreign",
    "Matrix",
    "ModelConfig",
    "Network",
    "RopeScaling",
    "ValueResidualConfig",
    "adapt",
    "assemble",
    "config_from_state",
    "family_of",
    "from_json",
    "init_loss_verdict",
    "load_model",
    "load_state",
    "n_parameter",
    "new_network",
    "preflight_tokenizer",
    "preset",
    "read_huggingface",
    "read_parameter_golf",
    "read_state",
    "record",
    "rms_norm",
    "save_model",
    "save_state",
    "starting_point",
    "state",
    "to_json",
    "write_huggingface",
    "write_parameter_golf",
]

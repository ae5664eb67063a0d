"""Configuration, network, sites and checkpoints."""

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
from workbench.model.network import Matrix, Network, n_parameter, new_network, rms_norm
from workbench.model.recurrence import RecurrenceConfig
from workbench.model.rotary import RopeScaling
from workbench.model.sites import record
from workbench.model.size import cache_bytes, flops_per_token, parameters_by_part
from workbench.model.value_residual import ValueResidualConfig

__all__ = [
    "PRESETS",
    "Matrix",
    "ModelConfig",
    "Network",
    "RecurrenceConfig",
    "RopeScaling",
    "ValueResidualConfig",
    "assemble",
    "cache_bytes",
    "config_from_state",
    "flops_per_token",
    "from_json",
    "load_model",
    "load_state",
    "n_parameter",
    "new_network",
    "parameters_by_part",
    "preset",
    "read_state",
    "record",
    "rms_norm",
    "save_model",
    "save_state",
    "starting_point",
    "state",
    "to_json",
]

"""Dead settings and parameters: planted, each with a healthy twin; the presets have none."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn

from workbench.diagnostics import Recipe, alive
from workbench.folder import InputError
from workbench.model import ModelConfig, Network, new_network, preset, save_state, starting_point
from workbench.training import OptimizerConfig, TrainConfig
from workbench.training.averages import AverageConfig
from workbench.training.objectives import ObjectiveConfig
from workbench.training.schedule import Switch

SMALL = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "d_model": 16, "vocab_size": 257}
SHORT = TrainConfig(steps=20, tokens_per_step=64, sequence_length=32, micro_batches=1)


@pytest.fixture
def judge(tiny_data):
    """Return a function that gives the levels of what is judged, by name."""

    def judged(model=None, train=SHORT, *, make=None, whole=False):
        model = model or preset("baseline", **SMALL)
        make = make or partial(new_network, seed=0)
        found = alive(Recipe(model=model, train=train), tiny_data, make=make)
        return {each.name: each if whole else each.level for each in found}

    return judged


def drawn(kind, config, *, seed=0):
    """Make a network of a planted kind, its weights those of `new_network`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(config)
    network.load_state_dict(new_network(config, seed=seed).state_dict(), strict=False)
    return network


# --- parameters ------------------------------------------------------------------------------


class Bigram(Network):
    """Adds a table times a projection to the hidden state; both begin at 0."""

    TABLE_STD = 0.0

    def __init__(self, config):
        super().__init__(config)
        self.blocks[0].table = nn.Parameter(self.TABLE_STD * torch.randn(257, 8))
        self.blocks[0].project = nn.Parameter(torch.zeros(8, config.d_model))

    def forward(self, ids):
        block = self.blocks[0]
        return self.head(self.hidden(ids) + block.table[ids] @ block.project)


class HealthyBigram(Bigram):
    """Its table is drawn: the projection learns at once, the table from the second update on."""

    TABLE_STD = 0.1


def test_two_zeros_multiplied_are_dead_and_one_is_not(judge):
    found = judge(make=partial(drawn, Bigram), whole=True)
    dead = {name: each for name, each in found.items() if each.level == "error"}
    assert set(dead) == {"blocks.0.table", "blocks.0.project"}
    assert all("multiplied by" in each.message and each.remedy for each in dead.values())
    healthy = judge(make=partial(drawn, HealthyBigram))
    assert "error" not in healthy.values(), "rows that never occur are not dead either"


@pytest.mark.parametrize("tied", [True, False])
def test_zero_projections_of_fresh_weights_are_alive(judge, tied):
    """An untied head, the projections and what feeds them wake one after the other."""
    found = judge(preset("baseline", **SMALL, tie_embeddings=tied))
    assert not [name for name in found if not name.startswith(("model", "train"))]


class Unread(Network):
    """Has a parameter that no forward pass reads."""

    def __init__(self, config):
        super().__init__(config)
        self.blocks[0].gate = nn.Parameter(torch.ones(config.d_model))


def test_a_parameter_that_is_not_read_is_dead_unless_frozen(judge):
    def frozen(config):
        network = drawn(Unread, config)
        network.blocks[0].gate.requires_grad_(False)
        return network

    assert judge(make=partial(drawn, Unread))["blocks.0.gate"] == "error"
    assert "blocks.0.gate" not in judge(make=frozen)


def test_a_parameter_without_a_rate_does_not_move(judge):
    still = judge(train=replace(SHORT, optimizer=OptimizerConfig(tied_embedding_lr=0.0)))
    assert still["tok_emb.weight"] == "warning"
    assert still["train.optimizer.tied_embedding_lr"] == "ok", "the rest moves otherwise"


# --- settings of the model -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Flagged(ModelConfig):
    """A configuration with two more settings."""

    smear: bool = False
    noise: float = 0.0


class Stores(Network):
    """Keeps the settings and does nothing with them."""

    IS_LATE = False

    def __init__(self, config):
        super().__init__(config)
        self.smear = config.smear

    def forward(self, ids):
        hidden = self.hidden(ids)
        if self.IS_LATE:  # frozen, as a compiler freezes it
            hidden = hidden + self.config.noise * hidden.roll(1, -1)
        return self.head(hidden)


class Smears(Stores):
    """Reads both."""

    IS_LATE = True

    def hidden(self, ids):
        hidden = super().hidden(ids)
        return hidden + 0.1 * hidden.roll(1, 1) if self.smear else hidden


def test_settings_that_are_stored_and_never_read(judge):
    config = Flagged(**SMALL, smear=True, noise=0.25)
    found = judge(config, make=partial(drawn, Stores), whole=True)
    dead = {n: each.message.split()[0] for n, each in found.items() if each.level == "error"}
    assert dead == {"model.smear": "True", "model.noise": "0.25"}
    healthy = judge(config, make=partial(drawn, Smears))
    assert healthy["model.smear"] == healthy["model.noise"] == "ok"
    off = judge(replace(config, smear=False, noise=0.0), make=partial(drawn, Stores))
    assert not {"model.smear", "model.noise"} & set(off), "what is off is not accused"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("baseline", {}),
        ("baseline", {"tie_embeddings": False, "output_bias": True}),
        ("demo", {}),
        ("demo", {"value_residual": {"form": "blend", "gate": "sigmoid", "init": 0.1}}),
        ("llama", {"feedforward_width": 40}),
        ("llama", {"feedforward_width": 40, "rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("qwen2", {"feedforward_width": 40}),
        ("qwen3", {"feedforward_width": 40, "head_width": 8}),
    ],
)
def test_presets_are_alive(judge, name, more):
    found = judge(preset(name, **SMALL, **more))
    assert set(found.values()) <= {"ok", "unjudged"}
    assert found["model.d_model"] == found["train.steps"] == "ok"
    for mechanism in {"value_residual", "rope_scaling"} & set(more):
        assert {found[f"model.{mechanism}.{setting}"] for setting in more[mechanism]} == {"ok"}


def test_a_setting_that_another_makes_idle(judge):
    """What a multiple is of is not asked where the width is given, nor what a head learns by."""
    train = replace(SHORT, optimizer=OptimizerConfig(head_lr=0.1))
    given = {"feedforward_multiple": 3, "feedforward_width": 40}
    found = judge(preset("baseline", **SMALL, **given), train)
    assert found["model.feedforward_multiple"] == "error"
    assert found["train.optimizer.head_lr"] == "error"
    apart = judge(preset("baseline", **SMALL, feedforward_multiple=3, tie_embeddings=False), train)
    assert apart["model.feedforward_multiple"] == apart["train.optimizer.head_lr"] == "ok"


def test_a_value_residual_with_one_block_has_nothing_to_mix(judge):
    found = judge(preset("demo", **SMALL | {"n_layer": 1}))
    assert found["model.value_residual"] == "error"


# --- settings of the training ----------------------------------------------------------------


def test_what_acts_late_is_judged_by_the_schedule(judge):
    late = replace(
        SHORT,
        warmdown_steps=3,
        decay="cosine",
        by_group={"embedding": {"floor": 0.5}},
        switches=(Switch(at=0.9, sequence_length=16),),
        optimizer=OptimizerConfig(momentum_period=30),
    )
    found = judge(train=late)
    names = ("warmdown_steps", "decay", "by_group", "switches", "optimizer.momentum_period")
    assert {found[f"train.{name}"] for name in names} == {"ok"}
    idle = judge(train=replace(SHORT, warmdown_steps=0, decay="cosine"))
    assert idle["train.decay"] == "error", "there is no warmdown to shape"


def test_blocks_that_recur_and_what_switches_them(judge):
    shape = preset("demo", **SMALL, recurrence={"first": 0, "last": 1, "passes": 3})
    once = replace(SHORT, passes=1, switches=(Switch(at=0.5, passes=2),), quantize_bits=6)
    found = judge(model=shape, train=once)
    names = ("train.passes", "train.quantize_bits", "train.switches", "model.recurrence.passes")
    assert {found[name] for name in names} == {"ok"}
    assert "error" not in found.values(), "what later passes alone will use is not dead"
    llama = preset("llama", **SMALL, recurrence={"first": 1, "last": 1, "passes": 3})
    late = replace(SHORT, passes=1, switches=(Switch(at=0.5, passes=3),))
    assert "error" not in judge(model=llama, train=late).values(), "no parameter tells them apart"
    alone = preset("demo", **SMALL | {"n_layer": 1}, recurrence={"first": 0, "last": 0})
    late = replace(late, switches=(Switch(at=0.5, passes=2),))
    assert "error" not in judge(model=alone, train=late).values()


def test_what_cannot_show_is_said_to_be_unjudged(judge):
    quiet = replace(SHORT, validate_every=7, checkpoints=3, tokens_per_pass=32, seed=4)
    found = judge(train=replace(quiet, seconds=9.0, average=AverageConfig(kind="ema", decay=0.9)))
    names = ("validate_every", "checkpoints", "tokens_per_pass", "seed", "seconds", "average.kind")
    assert {found[f"train.{name}"] for name in names} == {"unjudged"}


@pytest.mark.parametrize(("limit", "level"), [(1e6, "warning"), (1e-3, "ok")])
def test_a_clip_that_never_fires(judge, limit, level):
    found = judge(train=replace(SHORT, optimizer=OptimizerConfig(clip_grad_norm=limit)), whole=True)
    each = found["train.optimizer.clip_grad_norm"]
    assert each.level == level and each.message.startswith(str(limit))
    assert ("does not fire" in each.message) == (level == "warning")


def test_terms_of_the_objective(judge):
    some = ObjectiveConfig(
        z_loss=1e-3, label_smoothing=0.1, class_weights={"continuation": 2.0}, future_tokens=1
    )
    found = judge(train=replace(SHORT, objective=replace(some, future_weight=0.5)))
    for name in ("z_loss", "label_smoothing", "class_weights", "future_tokens", "future_weight"):
        assert found[f"train.objective.{name}"] == "ok"
    idle = ObjectiveConfig(future_weight=0.5, class_weights={"digit": 2.0})
    found = judge(train=replace(SHORT, objective=idle))
    assert found["train.objective.future_weight"] == "error"
    assert found["train.objective.class_weights"] == "warning", "no digit in these few rows"


# --- what it leaves alone --------------------------------------------------------------------


def test_nothing_else_is_touched_and_the_same_is_found_twice(judge):
    made, before = [], torch.get_rng_state()

    def make(config):
        made.append(new_network(config, seed=0))
        return made[-1]

    given = new_network(preset("demo", **SMALL), seed=0)
    weights = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    first = judge(given.config, make=make, whole=True)
    assert first == judge(given.config, make=make, whole=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[name], t) for name, t in given.state_dict().items())
    assert all(network is not given for network in made)


def test_given_weights_that_fit_no_other_shape(judge, tmp_path):
    config = preset("demo", **SMALL, value_residual={"init": 0.3}, softcap=20.0)
    path = tmp_path / "weights.safetensors"
    save_state(new_network(config, seed=0), path)
    found = judge(config, make=partial(starting_point, seed=1, initial_state=str(path)))
    assert "error" not in found.values()
    assert found["model.softcap"] == "ok"
    assert found["model.d_model"] == found["model.value_residual.init"] == "unjudged"


def test_a_text_that_does_not_fit_is_refused(judge):
    with pytest.raises(InputError, match="tokens_per_step"):
        judge(train=replace(SHORT, tokens_per_step=33))

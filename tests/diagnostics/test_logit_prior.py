from itertools import product

import numpy as np
import pytest
import torch
import xarray as xr
from planted_routing import SCALE, Planted, records, reference_rows, tokenizer_of
from scipy import stats

from workbench.diagnostics.branch import Head, branch_states, mean_hidden, piece_order
from workbench.diagnostics.logit_prior import logit_prior
from workbench.diagnostics.margin import (
    bootstrap_interval,
    margin_split,
    mean_parts,
    rival_ids,
    verdicts,
    what_to_mend,
)
from workbench.folder import InputError
from workbench.model import ModelConfig, new_network
from workbench.result import check, open_tree, save, variable

PROFILES = records()
RECORDS = [each for group in PROFILES.values() for each in group]
WORDS = tokenizer_of(PROFILES)


def split(model, **options):
    mu = mean_hidden(model, reference_rows(PROFILES, WORDS))
    return logit_prior(
        model, RECORDS, WORDS, reference=(mu, "prompts"), context_length=32, **options
    )


def random_network(*, seed=1, std=0.1, **fields):
    config = ModelConfig(
        n_layer=2, n_head=2, n_kv_head=1, d_model=64, vocab_size=WORDS.vocab_size, **fields
    )
    network = new_network(config, seed=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 2 and "resid_mix" not in name and "skip" not in name:
                parameter.normal_(0.0, std, generator=generator)
    return network


@pytest.mark.parametrize("fields", [{}, {"output_bias": True}, {"tie_embeddings": False}])
@pytest.mark.parametrize("rival", ["target", "runner_up"])
def test_parts_add_up_to_the_models_own_margin(fields, rival):
    network = random_network(**fields)
    if fields.get("output_bias"):
        with torch.no_grad():
            network.lm_bias.normal_(generator=torch.Generator().manual_seed(3))
    found = split(network, rival=rival)
    states = branch_states(network, RECORDS, WORDS, context_length=32)
    rows = np.arange(len(RECORDS))
    cap = network.config.softcap
    own = cap * np.arctanh(states.logits / cap)  # undo the softcap
    margin = own[rows, found.winner_id] - own[rows, found.rival_id]
    scale = 1e-4 * float(np.ptp(states.scores))
    np.testing.assert_allclose(found.margin, margin, atol=scale)
    np.testing.assert_allclose(found.bias + found.prior + found.context, found.margin, atol=1e-9)
    np.testing.assert_allclose(found.prior + found.context, found.hidden_projection, atol=1e-9)
    if "output_bias" not in fields:
        assert (found.bias == 0.0).all()
    assert (found.margin >= 0).all()


def test_the_rival_is_the_target_where_the_winner_is_wrong():
    found = split(random_network())
    wrong = ~found.correct
    assert wrong.any() and (found.rival == found.target)[wrong].all()
    assert (found.winner != found.rival).all()
    healthy = split(Planted(WORDS))
    assert healthy.correct.all() and (healthy.rival != healthy.target).all()


def test_runner_up_by_loop():
    scores = np.random.default_rng(0).normal(size=(6, 5))
    order = scores.argsort(axis=1)[:, ::-1]
    place = piece_order(list("abcde"))
    found = rival_ids(
        scores, target=np.zeros(6, int), winner=order[:, 0], place=place, rival="runner_up"
    )
    np.testing.assert_array_equal(found, order[:, 1])


def test_a_healthy_model_wins_on_context():
    found = split(Planted(WORDS))
    assert (found.verdict == "context").all() and (found.pressure == "hidden_projection").all()
    assert (found.context > found.prior).all()


def test_a_planted_bias_wins_as_bias_and_its_healthy_twin_does_not():
    found = split(Planted(WORDS, bias={" decoy": 6.0}))
    assert (found.winner == " decoy").all() and (found.verdict == "bias").all()
    assert (found.pressure == "output_bias").all()
    np.testing.assert_allclose(found.bias, 6.0)
    twin = split(Planted(WORDS, bias={" decoy": 0.0}))
    assert (twin.verdict == "context").all()


def test_a_bias_raised_on_a_random_model_is_output_bias():
    network = random_network(output_bias=True, std=0.05)
    with torch.no_grad():
        network.lm_bias[WORDS.pieces.index(" decoy")] = 5.0
    found = split(network)
    assert (found.winner == " decoy").all() and (found.bias == 5.0).all()
    failed = ~found.correct.values
    assert (found.pressure.values[failed] == "output_bias").mean() > 0.9
    assert (found.verdict == "bias").mean() > 0.9
    with torch.no_grad():
        network.lm_bias.zero_()
    twin = split(network)
    assert (twin.pressure == "hidden_projection").all() and (twin.bias == 0.0).all()


def test_a_constant_hidden_state_is_hidden_by_the_plain_split_and_prior_by_the_extended():
    found = split(Planted(WORDS, constant={" decoy": 30.0}))
    assert (found.winner == " decoy").all()
    assert (found.pressure == "hidden_projection").all()
    assert (found.verdict == "prior").all()
    assert (found.prior > 5).all() and (found.bias == 0.0).all()


def test_bias_and_constant_together_are_both_or_joint():
    either = split(Planted(WORDS, bias={" decoy": 6.0}, constant={" decoy": 30.0}))
    assert (either.verdict == "both").all()
    half = split(Planted(WORDS, bias={" decoy": 2.0}, constant={" decoy": 9.0}))
    assert (half.winner == " decoy").all() and (half.verdict == "joint").all()


def test_verdicts_by_asking_who_wins_without_each_part():
    rng = np.random.default_rng(5)
    weight, bias, mu = rng.normal(size=(7, 4)), rng.normal(size=7), 1.5 * rng.normal(size=4)
    hidden = mu + rng.normal(size=(300, 4))
    head = Head(weight=weight, bias=bias)
    scores = head.scores(hidden)
    winner = scores.argmax(axis=1)
    found = verdicts(scores, head, mu=mu, winner=winner, place=piece_order(list("abcdefg")))
    for row, h in enumerate(hidden):
        wins = {}
        for with_bias, with_mu in product((True, False), repeat=2):
            parts = weight @ (h - mu) + with_bias * bias + with_mu * (weight @ mu)
            wins[with_bias, with_mu] = parts.argmax() == winner[row]
        if wins[False, False]:
            expected = "context"
        else:
            expected = {
                (True, False): "bias",
                (False, True): "prior",
                (True, True): "both",
                (False, False): "joint",
            }[wins[True, False], wins[False, True]]
        assert found[row] == expected
    assert set(found.tolist()) == {"context", "bias", "prior", "both", "joint"}


def test_margins_by_loop():
    rng = np.random.default_rng(6)
    head = Head(weight=rng.normal(size=(5, 3)), bias=rng.normal(size=5))
    hidden, mu = rng.normal(size=(8, 3)), rng.normal(size=3)
    winner, rival = rng.integers(0, 5, 8), rng.integers(0, 5, 8)
    found = margin_split(hidden, head, mu=mu, winner=winner, rival=rival)
    for row in range(8):
        w, r = winner[row], rival[row]
        assert found.bias[row] == head.bias[w] - head.bias[r]
        assert found.prior[row] == pytest.approx(head.weight[w] @ mu - head.weight[r] @ mu)
        ahead = head.scores(hidden)[row, w] - head.scores(hidden)[row, r]
        assert found.margin[row] == pytest.approx(ahead)


def damped(*, bias=0.0, prior=0.0, error=0.001):
    """What keeping half of bias or prior would change, as `damping` tells it."""
    data = {
        "change": variable("setting", [prior, 0.0, bias], "change", "bit/byte"),
        "change_standard_error": variable("setting", [error, 0.0, error], "error", "bit/byte"),
    }
    kept = {"prior_kept": ("setting", [0.5, 1, 1]), "bias_kept": ("setting", [1, 1, 0.5])}
    return xr.Dataset(data, coords=kept)


def test_a_planted_bias_is_mended_at_the_bias_only_if_less_of_it_helps():
    found = split(Planted(WORDS, bias={" decoy": 6.0}))
    said = what_to_mend(found, damped(bias=-0.2)).attrs
    assert said["decision"] == "bias" and said["gain_bias"] == 0.2
    assert said["constant"] == said["failed"] == said["predictions"] == len(RECORDS)
    for unhelpful in (damped(bias=0.2), damped(bias=-0.2, error=0.15), damped(prior=-0.1)):
        assert what_to_mend(found, unhelpful).attrs["decision"] == "trunk"


def test_a_planted_constant_state_is_mended_at_the_head():
    found = split(Planted(WORDS, constant={" decoy": 30.0}))
    mended = check(what_to_mend(found, damped(prior=-0.3)))
    assert mended.attrs["decision"] == "head"
    np.testing.assert_allclose(mended["mean"].sel(component="prior"), found.prior.mean())


def test_the_larger_part_is_mended_first():
    found = split(Planted(WORDS, bias={" decoy": 6.0}, constant={" decoy": 30.0}))
    larger = "bias" if float(found.bias.mean()) > float(found.prior.mean()) else "head"
    assert what_to_mend(found, damped(bias=-0.1, prior=-0.2)).attrs["decision"] == larger


def test_wrong_on_context_alone_is_the_trunk_and_right_is_nothing_to_mend():
    healthy = split(Planted(WORDS))
    both = damped(bias=-0.2, prior=-0.2)
    assert what_to_mend(healthy, both).attrs["decision"] == "nothing to mend"
    wrong = healthy.assign_coords(correct=("record", np.zeros(len(RECORDS), bool)))
    said = what_to_mend(wrong, both).attrs
    assert said["decision"] == "trunk" and said["constant"] == 0


def test_few_or_mixed_predictions_are_not_judged():
    found = split(Planted(WORDS, bias={" decoy": 6.0}))
    few = found.isel(record=slice(0, 4))
    assert what_to_mend(few, damped(bias=-1.0)).attrs["decision"] == "not able to judge"
    one = found.assign_coords(group=("record", ["same"] * len(RECORDS)))
    assert what_to_mend(one, damped(bias=-1.0)).attrs["decision"] == "not able to judge"
    mixed = found.copy()
    mixed["verdict"] = found.verdict.where(np.arange(len(RECORDS)) % 2 == 0, "context")
    assert what_to_mend(mixed, damped(bias=-1.0)).attrs["decision"] == "not able to judge"


def test_bootstrap_interval_agrees_with_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=(80, 2))
    low, high = bootstrap_interval(values, np.arange(80))
    for column in range(2):
        expected = stats.bootstrap(
            (values[:, column],),
            np.mean,
            method="percentile",
            n_resamples=4000,
            rng=np.random.default_rng(1),
        ).confidence_interval
        width = expected.high - expected.low
        assert low[column] == pytest.approx(expected.low, abs=0.1 * width)
        assert high[column] == pytest.approx(expected.high, abs=0.1 * width)
    np.testing.assert_array_equal(bootstrap_interval(values, np.arange(80)), (low, high))


def test_records_of_one_group_are_one_observation():
    values = np.random.default_rng(0).normal(size=(30, 1))
    alone = bootstrap_interval(values, np.arange(30))
    repeated = bootstrap_interval(np.repeat(values, 5, axis=0), np.repeat(np.arange(30), 5))
    np.testing.assert_allclose(repeated, alone)
    assert np.isnan(bootstrap_interval(values, np.zeros(30))).all()


def test_means_of_no_records_are_refused():
    parts = split(Planted(WORDS))[["bias", "prior"]].to_dataarray("component")
    assert mean_parts(parts).attrs["records"] == len(RECORDS)
    with pytest.raises(InputError, match="same text"):
        mean_parts(parts.isel(record=slice(0, 0)))


def test_the_reference_and_classes_are_part_of_the_result(tmp_path):
    found = check(split(Planted(WORDS), token_classes=["word"] * WORDS.vocab_size))
    assert found.attrs["reference"] == "prompts" and (found.token_class == "word").all()
    assert found.record.values.tolist() == [each.id for each in RECORDS]
    save({"logit_prior": found}, tmp_path / "diagnosis.nc", provenance={})
    again = open_tree(tmp_path / "diagnosis.nc")["logit_prior"].to_dataset()
    np.testing.assert_array_equal(again.margin, found.margin)
    assert again.verdict.values.tolist() == found.verdict.values.tolist()


def test_an_unknown_rival_or_another_models_mean_is_refused():
    model = Planted(WORDS)
    with pytest.raises(InputError, match="runner_up"):
        split(model, rival="second")
    with pytest.raises(InputError, match="mean_hidden from the same model"):
        logit_prior(model, RECORDS, WORDS, reference=(np.zeros(3), "none"), context_length=32)


def test_another_reference_moves_the_prior_and_not_the_margin():
    model = Planted(WORDS)
    first = split(model)
    mu = SCALE * np.ones(WORDS.vocab_size)
    other = logit_prior(model, RECORDS, WORDS, reference=(mu, "ones"), context_length=32)
    np.testing.assert_allclose(first.margin, other.margin, atol=1e-9)
    assert not np.allclose(first.prior, other.prior)

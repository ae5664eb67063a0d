from itertools import product

import numpy as np
import pytest
import torch
from planted_routing import SCALE, Planted, records, reference_rows, tokenizer_of

from workbench.diagnostics.branch import Head, branch_states, mean_hidden, piece_order
from workbench.diagnostics.logit_prior import logit_prior, pressure_by_profile
from workbench.diagnostics.margin import margin_split, rival_ids, verdicts
from workbench.folder import InputError
from workbench.model import ModelConfig, new_network
from workbench.result import check, open_tree, save

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
    assert (pressure_by_profile(found).pressure == "none").all()


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
    by_profile = pressure_by_profile(found)
    assert (by_profile.pressure == "output_bias").all()
    assert (found.verdict == "bias").mean() > 0.9
    with torch.no_grad():
        network.lm_bias.zero_()
    twin = pressure_by_profile(split(network))
    assert (twin.pressure == "hidden_projection").all() and (twin.bias_share == 0.0).all()


def test_a_constant_hidden_state_is_hidden_by_the_plain_split_and_prior_by_the_extended():
    found = split(Planted(WORDS, constant={" decoy": 30.0}))
    assert (found.winner == " decoy").all()
    assert (found.pressure == "hidden_projection").all()
    assert (found.verdict == "prior").all()
    assert (found.prior > 5).all()
    by_profile = pressure_by_profile(found)
    assert (by_profile.constant_share > 0.67).all() and (by_profile.bias_share == 0.0).all()


def test_bias_and_constant_together_are_both_or_joint():
    either = split(Planted(WORDS, bias={" decoy": 6.0}, constant={" decoy": 30.0}))
    assert (either.verdict == "both").all()
    half = split(Planted(WORDS, bias={" decoy": 2.0}, constant={" decoy": 9.0}))
    assert (half.winner == " decoy").all() and (half.verdict == "joint").all()


def test_verdicts_by_asking_who_wins_without_each_part():
    rng = np.random.default_rng(5)
    weight, bias, mu = rng.normal(size=(7, 4)), rng.normal(size=7), 1.5 * rng.normal(size=4)
    hidden = mu + rng.normal(size=(300, 4))
    head = Head(weight=weight, bias=bias, has_bias=True)
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
    head = Head(weight=rng.normal(size=(5, 3)), bias=rng.normal(size=5), has_bias=True)
    hidden, mu = rng.normal(size=(8, 3)), rng.normal(size=3)
    winner, rival = rng.integers(0, 5, 8), rng.integers(0, 5, 8)
    found = margin_split(hidden, head, mu=mu, winner=winner, rival=rival)
    for row in range(8):
        w, r = winner[row], rival[row]
        assert found.bias[row] == head.bias[w] - head.bias[r]
        assert found.prior[row] == pytest.approx(head.weight[w] @ mu - head.weight[r] @ mu)
        ahead = head.scores(hidden)[row, w] - head.scores(hidden)[row, r]
        assert found.margin[row] == pytest.approx(ahead)


def test_pressure_of_a_profile_is_the_mean_over_its_failed_records():
    network = random_network(output_bias=True)
    with torch.no_grad():
        network.lm_bias.normal_(generator=torch.Generator().manual_seed(4))
    found = split(network)
    by_profile = pressure_by_profile(found)
    assert by_profile.profile.values.tolist() == list(PROFILES)
    for name in PROFILES:
        chosen = (found.profile == name) & ~found.correct
        row = by_profile.sel(profile=name)
        assert int(row.failed) == int(chosen.sum()) and int(row.records) == 12
        for part, advantage in (
            ("bias", "bias_advantage"),
            ("hidden_projection", "hidden_advantage"),
        ):
            mean = found[part].values[chosen.values].mean()
            assert float(row[advantage]) == pytest.approx(mean)
    with pytest.raises(ValueError, match="rival='target'"):
        pressure_by_profile(split(network, rival="runner_up"))


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

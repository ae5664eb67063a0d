from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_routing import SUBJECTS, Planted, lopsided, records, tokenizer_of

from workbench.diagnostics.coverage import coverage_history
from workbench.diagnostics.routing_audit import audit_checkpoints, routing_audit
from workbench.diagnostics.sample import Sample
from workbench.model import ModelConfig, new_network
from workbench.result import check, open_tree, save
from workbench.text.sentencepiece_model import train_tokenizer
from workbench.text.world import Record, closed_world, world_documents

PROFILES = records()
WORDS = tokenizer_of(PROFILES)
PROMISED = (
    *("records", "target_unique", "predicted_unique", "target_coverage", "owned_coverage"),
    *("accuracy", "dominant_rate", "collapsed", "separation", "escape_risk", "root_cause"),
)


def audit(model, profiles=PROFILES, **options):
    return routing_audit(model, profiles, WORDS, context_length=32, **options)


def flags(dataset):
    """Return which of the audit's flags stand on any profile."""
    return {
        name
        for name, stands in {
            "escape": (dataset.escape_risk != "low").any(),
            "separation": (dataset.separation_verdict == "low").any(),
            "hotspot": dataset.hotspot.any(),
            "context": (~dataset.context_gate_passed).any(),
        }.items()
        if bool(stands)
    }


def test_a_healthy_model_raises_no_flag():
    found = audit(Planted(WORDS))
    assert flags(found) == set()
    assert found.attrs["gate_passed"] == 1
    assert found.attrs["hypothesis"] == "no_branch_diversity_gap"
    assert (found.root_cause == "no_branch_diversity_gap").all()
    for name in ("accuracy", "owned_coverage", "target_coverage", "macro_recall"):
        assert (found[name] == 1.0).all()
    assert (found.target_rank == 1.0).all() and (found.separation > 3.0).all()


def test_a_healthy_bias_raises_no_flag():
    mild = {" Mia": 1.0, " red": 1.0, " it": 0.5}
    assert flags(audit(Planted(WORDS, bias=mild))) == set()


def test_a_planted_output_bias_raises_only_its_flag():
    found = audit(Planted(WORDS, bias={" decoy": 5.0}))
    assert flags(found) == {"escape"}
    assert (found.escape_risk == "high").all() and found.collapsed.all()
    assert (found.dominant_token == " decoy").all() and (found.pressure == "output_bias").all()
    assert (found.root_cause == "global_output_prior_collapse").all()
    assert found.attrs["shared_by_all"] == 1 and found.attrs["gate_passed"] == 0


def test_a_frozen_embedding_raises_only_separation():
    found = audit(Planted(WORDS, frozen=True, noise=0.0, bias={" decoy": 0.0}))
    assert flags(found) == {"separation"}
    assert (found.separation == 0.0).all() and found.collapsed.all()


def test_a_lopsided_profile_raises_only_the_hotspot():
    profiles = {name: lopsided(name) for name in PROFILES}
    found = audit(Planted(WORDS), profiles)
    assert flags(found) == {"hotspot"}
    np.testing.assert_allclose(found.top_target_share, 0.9)
    assert (found.accuracy == 1.0).all()
    assert found.attrs["hypothesis"] == "no_branch_diversity_gap"


def test_an_ambiguous_context_is_blamed_on_the_context():
    found = routing_audit(Planted(WORDS), PROFILES, WORDS, context_length=2)
    assert flags(found) >= {"context"}
    assert (found.root_cause == "context_gate_failed").all()
    assert (found.escape_risk == "unjudged").all() and not found.collapsed.any()
    assert (found.ambiguous_contexts > 0).all() and (found.missing_contexts == 12).all()
    assert found.attrs["hypothesis"] == "no_multi_target_profiles"
    assert found.attrs["gate_passed"] == 0
    assert (found.failure_modes == "").all()


def test_a_failed_context_takes_no_part_in_the_hypothesis():
    twice = [
        *PROFILES["owner"],
        Record(
            id="again",
            prompt=PROFILES["owner"][0].prompt,
            target=" Leo",
            profile="owner",
            source="statement:owner",
        ),
    ]
    found = audit(Planted(WORDS), {"owner": twice, "colour": PROFILES["colour"]})
    assert found.root_cause.values.tolist() == ["context_gate_failed", "no_branch_diversity_gap"]
    assert found.attrs["gate_passed"] == 0, "what was not judged does not pass"
    alone = audit(Planted(WORDS), {"colour": PROFILES["colour"]})
    assert alone.attrs["gate_passed"] == 1


def test_answers_that_are_permuted_do_not_pass():
    turned = {
        profile: dict(zip(answers, np.roll(list(answers.values()), 1).tolist(), strict=True))
        for profile, answers in SUBJECTS.items()
    }
    found = audit(Planted(WORDS, turned))
    assert (found.target_coverage == 1.0).all() and (found.owned_coverage == 0.0).all()
    assert found.attrs["gate_passed"] == 0 and (found.accuracy == 0.0).all()
    assert (found.failure_modes == "misrouted_targets").all()
    assert flags(found) == set()


def test_a_profile_with_one_target_is_not_judged():
    one = [each for each in PROFILES["owner"] if each.target == " Mia"]
    found = audit(Planted(WORDS), {"one": one, "colour": PROFILES["colour"]})
    assert found.root_cause.values.tolist()[0] == "single_target_profile"
    assert np.isnan(found.separation.values[0]) and np.isfinite(found.separation.values[1])
    assert found.separation_verdict.values[0] == "unjudged"


def test_an_empty_profile_measures_nothing_and_no_profile_is_refused():
    found = audit(Planted(WORDS), {"empty": [], **PROFILES})
    assert found.records.values[0] == 0 and np.isnan(found.accuracy.values[0])
    assert found.root_cause.values[0] == "context_gate_failed"
    with pytest.raises(ValueError, match="at least one profile"):
        audit(Planted(WORDS), {})


def test_the_promised_variables_are_there_and_survive_a_file(tmp_path):
    found = check(audit(Planted(WORDS, bias={" decoy": 5.0})))
    assert set(PROMISED) <= set(found.data_vars) and found.profile.values.tolist() == list(PROFILES)
    save({"routing_audit": found}, tmp_path / "diagnosis.nc", provenance={})
    again = open_tree(tmp_path / "diagnosis.nc")["routing_audit"].to_dataset()
    for name in found.data_vars:
        np.testing.assert_array_equal(again[name].values.astype(found[name].dtype), found[name])
    assert again.attrs["hypothesis"] == found.attrs["hypothesis"]


def test_targets_are_counted_where_they_are_asked_for():
    turned = {"owner": SUBJECTS["owner"] | {"cup": "Leo"}, "colour": SUBJECTS["colour"]}
    found = audit(Planted(WORDS, turned)).sel(profile="owner")
    asked, right = found.asked.dropna("target"), found.right.dropna("target")
    assert dict(zip(asked.target.values, asked.values, strict=True)) == dict.fromkeys(
        [f" {answer}" for answer in SUBJECTS["owner"].values()], 3.0
    )
    assert float(right.sel(target=" Mia")) == 0 and float(right.sel(target=" Leo")) == 3
    assert float(found.answered.sel(target=" Leo")) == 6
    assert (found.asked.isnull() == found.right.isnull()).all()
    assert found.accuracy == pytest.approx(9 / 12) and int(found.failed) == 3


def test_the_error_of_macro_recall_weighs_targets_alike():
    """By hand: three records of one target, two of another, every record a fact."""
    mia = [each for each in PROFILES["owner"] if each.target == " Mia"]
    leo = [each for each in PROFILES["owner"] if each.target == " Leo"][:2]
    wrong = leo[0].prompt.replace("pot", "pan")
    asked = [*mia, replace(leo[0], prompt=wrong), leo[1]]
    found = audit(Planted(WORDS), {"owner": asked})
    assert found.accuracy == 0.8 and found.macro_recall == 0.75
    weight, right = np.array([1 / 3] * 3 + [1 / 2] * 2), np.array([1, 1, 1, 0, 1])
    by_hand = np.sqrt(5 / 4 * np.sum((weight * (right - 0.75)) ** 2)) / weight.sum()
    assert found.macro_recall_standard_error == pytest.approx(by_hand)


class Run:
    """Stands for a run on a closed world whose checkpoints are given models."""

    def __init__(self, models):
        *steps, last = models
        self.checkpoints = {step: models[step] for step in steps}
        self.step, self.model = last, models[last]
        self.tokenizer, self.sequence_length = WORDS, 32
        self.reference = (np.zeros(WORDS.vocab_size), "nothing")
        self.data = type("Data", (), {"corpus": type("Corpus", (), {"world": None})()})()

    def sample(self):
        """Make a sample that never opens its text."""
        made = Sample(
            model=self.model,
            data=self.data,
            sequence_length=32,
            step=self.step,
            checkpoints=self.checkpoints,
        )
        made.__dict__["reference"] = self.reference
        made.__dict__["tokenizer"] = WORDS
        return made


def test_coverage_that_falls_below_step_0_stops_promotion():
    lost = {"owner": SUBJECTS["owner"] | {"cup": "Leo"}, "colour": SUBJECTS["colour"]}
    good, bad = Planted(WORDS), Planted(WORDS, lost)
    run = Run({0: good, 5: bad, 9: good})
    run.data.tokenizer = WORDS
    history = coverage_history(run.sample(), PROFILES)
    assert history.step.values.tolist() == [0, 5, 9]
    np.testing.assert_allclose(history.above_floor, [[0, 0], [-0.25, 0], [0, 0]])
    np.testing.assert_allclose(history.owned_by_step_min, [1, 0.75, 1])
    np.testing.assert_allclose(history.above_floor_min, [0, -0.25, 0])
    kept = audit_checkpoints(run.sample(), PROFILES)
    assert kept.attrs["promote"] == 1 and kept.attrs["below_floor"] == 0
    run = Run({0: good, 9: bad})
    run.data.tokenizer = WORDS
    fell = audit_checkpoints(run.sample(), PROFILES)
    assert fell.attrs["promote"] == 0 and fell.attrs["below_floor"] == 1


def test_without_step_0_there_is_no_floor_and_an_empty_profile_breaks_it():
    run = Run({4: Planted(WORDS), 9: Planted(WORDS)})
    run.data.tokenizer = WORDS
    history = coverage_history(run.sample(), PROFILES)
    assert np.isnan(history.above_floor).all() and np.isnan(history.above_floor_min).all()
    one = {"one": [each for each in PROFILES["owner"] if each.target == " Mia"]}
    assert np.isnan(coverage_history(run.sample(), one).owned_by_step_min).all()


def test_a_real_network_on_the_closed_world():
    world = closed_world()
    tokenizer = train_tokenizer(world_documents(world), vocab_size=512)
    config = ModelConfig(n_layer=2, n_head=2, n_kv_head=1, d_model=32, vocab_size=512)
    network = new_network(config, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network.tok_emb.weight.normal_(0.0, 0.3, generator=generator)
    found = routing_audit(network, world.profiles, tokenizer, context_length=32)
    assert found.context_gate_passed.all() and found.records.values.sum() == 480
    assert (found.accuracy < 0.3).all() and found.attrs["gate_passed"] == 0
    again = routing_audit(network, world.profiles, tokenizer, context_length=32)
    assert (again.root_cause == found.root_cause).all()
    np.testing.assert_allclose(again.separation, found.separation, rtol=1e-6)

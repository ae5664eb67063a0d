import numpy as np
import pytest
import torch
import xarray as xr
from planted_routing import SUBJECTS, Planted, lopsided, records, tokenizer_of

from workbench.diagnostics.ladder import QUESTIONS, ladder
from workbench.diagnostics.routing_audit import routing_audit
from workbench.text.world import Record

PROFILES = records()
WORDS = tokenizer_of(PROFILES)


class Embedded(Planted):
    """The planted model with an embedding that can be read: a row of its head a token."""

    def sites(self):
        return ("embedding", *super().sites())

    def forward(self, ids):
        self.tap("embedding", self.head_weight.detach()[ids])
        return super().forward(ids)


def climb(model, profiles=PROFILES, *, context_length=32, **options):
    found = routing_audit(model, profiles, WORDS, context_length=context_length, **options)
    return found, found.first_red.values.tolist()


def unreachable():
    """Put the row of an answer at the mean of three others."""
    model = Embedded(WORDS)
    at = [WORDS.pieces.index(f" {word}") for word in ("Mia", "Leo", "Ada", "Tom")]
    with torch.no_grad():
        model.head_weight[at[0]] = model.head_weight[at[1:]].mean(dim=0)
    return model


def test_a_healthy_model_climbs_every_rung():
    for model in (Embedded(WORDS), Planted(WORDS), Embedded(WORDS, bias={" Mia": 1.0})):
        found, first = climb(model)
        assert first == ["", ""] and (found.state == "green").all()
        assert found.attrs["promote"] == 1 and found.attrs["first_red"] == ""


def test_each_planted_fault_stops_at_its_own_rung():
    frozen = Embedded(WORDS, frozen=True, noise=0.0)
    faults = {
        "context": climb(Embedded(WORDS), context_length=2),
        "reachable": climb(unreachable()),
        "probe": climb(frozen),
        "prior": climb(Embedded(WORDS, bias={" decoy": 5.0})),
        "imbalance": climb(Embedded(WORDS), {name: lopsided(name) for name in PROFILES}),
    }
    for rung, (found, first) in faults.items():
        red = [each for each in first if each]
        assert set(red) == {rung}, rung
        at = list(QUESTIONS).index(rung)
        stopped = found.state.values[[bool(each) for each in first]]
        assert (stopped[:, at] == "red").all() and (stopped[:, at + 1 :] == "not reached").all()
        assert not (stopped[:, :at] == "red").any()
        assert found.attrs["promote"] == 0 and found.attrs["first_red"] == rung
        assert found.attrs["red_profiles"] == len(red)
    assert faults["reachable"][1] == ["reachable", ""], "the other profile's rows are as they were"
    assert (faults["probe"][0].localised == "trunk").all()
    assert (faults["prior"][0].localised == "head").all()


def test_a_capacity_below_one_is_named_before_any_routing_gap():
    found, _ = climb(unreachable())
    assert found.row_ceiling.values.tolist() == [0.75, 1.0]
    assert found.root_cause.values[0] == "target_unreachable"
    assert found.attrs["hypothesis"] == "target_unreachable"
    assert float(found.target_reachable.sel(profile="owner", target=" Mia")) == 0.0


def test_a_constant_hidden_state_is_a_prior_once_the_mean_is_known():
    pushed = Embedded(WORDS, constant={" decoy": 40.0})
    mean = (pushed.offset + 0.0).double().numpy()
    found, first = climb(pushed, mean_hidden=mean)
    assert first == ["prior", "prior"] and (found.pressure == "hidden_projection").all()
    assert (found.constant_share > 0.9).all()
    found, first = climb(pushed)
    assert "prior" not in first, "without the mean only the bias is constant"


def test_where_neither_probe_finds_anything_the_next_rung_is_climbed():
    class Blind(Embedded):
        def forward(self, ids):
            self.tap("embedding", torch.ones(*ids.shape, 4))
            return Planted.forward(self, ids)

    found, first = climb(Blind(WORDS, frozen=True, noise=0.0))
    assert (found.localised == "unjudged").all() and first == ["separation", "separation"]
    assert (found.state.sel(rung="probe") == "not able to judge").all()


def few_right(right):
    """Ask 12 times for every target of a profile; `right` of them name the answer's subject."""
    asked = []
    for subject, answer in SUBJECTS["owner"].items():
        for number in range(12):
            named = subject if number < right else ["hat", "cap", "tie", "bag"][number % 4]
            asked.append(
                Record(
                    id=f"{subject}-{number}",
                    prompt=f"So{' what' * (number + 1)} of {subject} of {named} it is",
                    target=f" {answer}",
                    profile="owner",
                    source="statement:owner",
                )
            )
    return {"owner": asked}


def test_one_right_record_a_target_is_no_promotion():
    found, _ = climb(Embedded(WORDS), few_right(3))
    assert found.owned_coverage == 1 and found.accuracy == 0.25 == found.macro_recall
    assert found.attrs["promote"] == 0 and found.attrs["first_red"]
    mostly, first = climb(Embedded(WORDS), few_right(11))
    assert mostly.accuracy == pytest.approx(11 / 12) and first == [""]
    assert mostly.attrs["promote"] == 1


def table(**changes):
    """One profile that fails, with twenty failed records, and what is changed."""

    values = {
        "context_gate_passed": True,
        "row_ceiling": 1.0,
        "owned_coverage": 0.5,
        "macro_recall": 0.9,
        "macro_recall_standard_error": 0.05,
        "failed": 20,
        "localised": "head",
        "constant_share": 0.1,
        "separation_verdict": "apart",
        "hotspot": False,
        "target_unique": 4,
    } | changes
    return xr.Dataset({k: ("profile", [v]) for k, v in values.items()}, {"profile": ["p"]})


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "ownership"),
        ({"separation_verdict": "low"}, "separation"),
        ({"separation_verdict": "low", "owned_coverage": 1.0}, ""),
        ({"localised": "trunk", "owned_coverage": 1.0}, ""),
        ({"constant_share": 0.67}, "prior"),
        ({"failed": 4, "constant_share": 0.9, "separation_verdict": "low"}, "ownership"),
        ({"localised": "unjudged", "separation_verdict": "unjudged"}, "ownership"),
        ({"owned_coverage": np.nan}, "ownership"),
        ({"owned_coverage": 1.0}, ""),
        ({"owned_coverage": 1.0, "macro_recall": 0.79, "macro_recall_standard_error": 0.07}, ""),
        ({"owned_coverage": 1.0, "macro_recall": 0.59}, "ownership"),
        ({"owned_coverage": 1.0, "macro_recall": 0.25, "constant_share": 0.9}, "prior"),
        ({"owned_coverage": 1.0, "macro_recall_standard_error": np.nan}, "ownership"),
        ({"target_unique": 1, "context_gate_passed": False}, ""),
    ],
)
def test_rungs_by_hand(changes, first):
    found = ladder(table(**changes))
    assert found.first_red.values.tolist() == [first]
    assert found.attrs["promote"] == int(not first and changes.get("target_unique", 4) > 1)


def test_what_cannot_be_judged_is_said():
    state = ladder(table(localised="unjudged", failed=3)).state.values[0].tolist()
    assert state[2:5] == ["not able to judge"] * 3 and state[-1] == "red"
    assert set(ladder(table(target_unique=1)).state.values[0]) == {"not able to judge"}

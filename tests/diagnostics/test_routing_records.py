import numpy as np
import pytest
from planted_routing import Planted, records, tokenizer_of

from workbench.diagnostics.branch import branch_states
from workbench.diagnostics.routing_records import CHOICES, routing_records

PROFILES = records()
WORDS = tokenizer_of(PROFILES)


def test_every_record_by_a_loop():
    model = Planted(WORDS, bias={" decoy": 3.0}, noise=0.6)
    states = branch_states(model, PROFILES["owner"], WORDS, context_length=32)
    mean = (np.zeros(WORDS.vocab_size), "nothing")
    found = routing_records(model, states, pieces=WORDS.pieces, reference=mean)
    norm = np.sqrt((states.hidden**2).sum(axis=1).mean())
    for row, target in enumerate(states.target):
        odds = np.exp(states.logits[row] - states.logits[row].max())
        chance = odds / odds.sum()
        others = np.delete(chance, target)
        point = found.isel(record=row)
        assert float(point.probability) == pytest.approx(chance[target])
        assert float(point.lead) == pytest.approx(chance[target] - others.max())
        assert int(point["rank"]) == 1 + (chance > chance[target]).sum()
        best = np.argsort(-chance)[:CHOICES]
        assert point.likeliest.values.tolist() == [WORDS.pieces[each] for each in best]
        np.testing.assert_allclose(point.likeliest_probability, chance[best])
        assert point.prompt.item() == PROFILES["owner"][row].prompt
        for part, distance in zip(found.part.values, point.centroid_distance.values, strict=True):
            alike = np.array([WORDS.pieces[each] == part for each in states.target])
            alike[row] = False
            gap = states.hidden[row] - states.hidden[alike].mean(axis=0)
            assert distance == pytest.approx(np.linalg.norm(gap) / norm)
    np.testing.assert_allclose(found.margin, found.bias + found.prior + found.context)

import numpy as np
import pytest
import torch
from planted_routing import Planted, records, reference_rows, tokenizer_of

from workbench.diagnostics.branch import (
    branch_states,
    mean_hidden,
    output_head,
    piece_order,
    predicted_ids,
    states_at,
)
from workbench.model import ModelConfig, new_network, record
from workbench.text.context_gate import branches
from workbench.text.world import Record

PROFILES = records()
RECORDS = [each for group in PROFILES.values() for each in group]
WORDS = tokenizer_of(PROFILES)


def random_network(**fields):
    network = new_network(
        ModelConfig(
            n_layer=2, n_head=2, n_kv_head=1, d_model=16, vocab_size=WORDS.vocab_size, **fields
        ),
        seed=0,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return network


@pytest.mark.parametrize("fields", [{}, {"output_bias": True}, {"tie_embeddings": False}])
@pytest.mark.parametrize("context_length", [64, 4])
def test_states_are_those_of_one_unpadded_context_at_a_time(fields, context_length):
    network = random_network(**fields)
    states = branch_states(network, RECORDS, WORDS, context_length=context_length, batch=5)
    assert states.records == tuple(RECORDS)
    row = 0
    for group in PROFILES.values():
        found = branches(group, WORDS, context_length=context_length)
        for context, target in zip(found.contexts, found.targets, strict=True):
            with torch.no_grad(), record(network, ["final_norm"]) as seen:
                logits = network(torch.tensor([context]))[0, -1]
            hidden = seen["final_norm"][0, -1]
            np.testing.assert_allclose(states.hidden[row], hidden, atol=1e-5)
            np.testing.assert_allclose(states.logits[row], logits, atol=1e-4)
            cap = network.config.softcap
            np.testing.assert_allclose(
                states.scores[row], cap * torch.atanh(logits.double() / cap), atol=1e-4
            )
            assert states.predicted[row] == int(logits.argmax())
            assert states.target[row] == target
            row += 1
    assert row == len(RECORDS)


def test_order_and_duplicates_of_records_are_kept():
    mixed = [RECORDS[13], RECORDS[0], RECORDS[13], *RECORDS[1:13]]
    states = branch_states(random_network(), mixed, WORDS, context_length=64)
    assert states.records == tuple(mixed)
    np.testing.assert_allclose(states.hidden[0], states.hidden[2], atol=1e-6)
    assert states.profile[:2] == ("colour", "owner")


def test_no_records_give_empty_states():
    states = branch_states(random_network(), [], WORDS, context_length=64)
    assert states.hidden.shape == (0, 16) and states.scores.shape == (0, WORDS.vocab_size)


def test_a_head_that_is_not_the_models_is_refused():
    network = random_network()
    wrapped = Planted(WORDS)
    branch_states(network, RECORDS, WORDS, context_length=64)
    wrapped.config.softcap = 2.0
    with pytest.raises(ValueError, match="something after the head"):
        branch_states(wrapped, RECORDS, WORDS, context_length=64)


def test_bfloat16_is_within_what_is_accepted():
    network = random_network(output_bias=True).bfloat16()
    states = branch_states(network, RECORDS, WORDS, context_length=64)
    assert states.scores.dtype == np.float64


def test_ties_go_to_the_first_text_then_the_first_id():
    place = piece_order(["b", "c", "a", "b", "a"])
    assert place.tolist() == [2, 4, 0, 3, 1]
    scores = np.array([[1.0, 1, 0, 1, 0], [0, 0, 2, 0, 2], [0, 1, 0, 0, 0], [3, 3, 3, 3, 3]])
    assert predicted_ids(scores, place).tolist() == [0, 2, 1, 2]


def test_mean_hidden_streams_to_the_mean_of_all_positions():
    network = random_network()
    rows = reference_rows(PROFILES, WORDS)
    kept = []
    for ids in rows:
        with torch.no_grad(), record(network, ["final_norm"]) as seen:
            network(torch.tensor(ids))
        kept.append(seen["final_norm"][0].double().numpy())
    np.testing.assert_allclose(
        mean_hidden(network, rows), np.concatenate(kept).mean(axis=0), atol=1e-12
    )
    with pytest.raises(ValueError, match="no position"):
        mean_hidden(network, [])


def test_a_model_without_bias_has_a_bias_of_zero():
    head = output_head(random_network())
    assert not head.bias.any()
    assert output_head(random_network(output_bias=True)).bias.any()


def test_nothing_stays_on_the_model():
    network = random_network()
    before = network.tap
    branch_states(network, RECORDS, WORDS, context_length=64)
    assert network.tap is before
    assert all(parameter.grad is None for parameter in network.parameters())


def test_contexts_that_begin_others_share_their_pass(tiny_network):
    draw = np.random.default_rng(0)
    long = [draw.integers(0, 257, size).tolist() for size in (9, 7, 7)]
    contexts = [long[0][:4], long[1], long[0], long[0][:1], long[2], long[1][:6], long[1]]
    records = [
        Record(id=str(i), prompt="p", target=" t", profile="p", source="s")
        for i in range(len(contexts))
    ]
    asked = {
        "records": records,
        "contexts": contexts,
        "targets": np.zeros(len(contexts), dtype=np.int64),
        "pieces": [str(each) for each in range(257)],
    }
    ran = []
    tiny_network.register_forward_pre_hook(lambda _, given: ran.append(len(given[0])))
    together = states_at(tiny_network, **asked)
    assert ran == [3], "three rows carry seven contexts"
    for index, context in enumerate(contexts):
        with torch.no_grad():
            alone = tiny_network.hidden(torch.tensor([context]))[0, -1].double().numpy()
        np.testing.assert_allclose(together.hidden[index], alone, atol=1e-5)

"""Artifacts: the same model again, every byte accounted for, and nothing else let in."""

import hashlib
import json
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recurrent_networks import looped

from workbench.folder import InputError
from workbench.quantization.artifact import MAGIC, open_artifact, pack, unpack, write_artifact
from workbench.quantization.budget import Quantizer, with_values
from workbench.quantization.curvature import curvature
from workbench.quantization.grid import Codes, integer_grid, nearest, ternary
from workbench.quantization.rounding import awq_grid, dead_zone


@pytest.fixture(scope="module")
def quantizer(tiny_network_shared):
    ids = torch.randint(0, 257, (6, 16), generator=torch.Generator().manual_seed(0))
    return Quantizer(model=tiny_network_shared, bends=curvature(tiny_network_shared, ids))


@pytest.fixture(scope="module")
def content(quantizer):
    return pack(quantizer.model.config, quantizer.codes(0.01))[0]


def sealed(body):
    """Give altered bytes a checksum that fits."""
    return body + hashlib.sha256(body).digest()[:16]


def mixed(model):
    """Quantise every kind of way, one matrix after another."""
    ways = [
        lambda w: nearest(w, integer_grid(w, bits=4)),
        lambda w: nearest(w, integer_grid(w, bits=3, group=w.shape[1] // 2)),
        ternary,
        lambda w: nearest(w, awq_grid(w, torch.rand(w.shape[1]) + 0.1, bits=6, power=0.5)),
        lambda w: w,
    ]
    found, at = {}, 0
    for name, tensor in model.state_dict().items():
        found[name] = tensor
        if tensor.ndim == 2 and name.endswith(".weight"):
            found[name], at = ways[at % len(ways)](tensor), at + 1
    return found


@pytest.mark.parametrize("step", [0.001, 0.05])
def test_it_reads_back_to_the_last_bit(quantizer, tmp_path, step):
    tensors = quantizer.codes(step)
    account = write_artifact(quantizer.model.config, tensors, tmp_path / "a.wba")
    assert sum(account.values()) == (tmp_path / "a.wba").stat().st_size
    network, again = open_artifact(tmp_path / "a.wba")
    expected = with_values(quantizer.model, tensors)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    assert network.config == quantizer.model.config and not network.training
    codes = again["blocks.0.attn.c_q.weight"]
    assert isinstance(codes, Codes) and torch.equal(
        codes.codes, tensors["blocks.0.attn.c_q.weight"].codes
    )


def test_blocks_that_recur_are_stored_once(tmp_path):
    model = looped().float().eval()
    ids = torch.randint(0, 11, (6, 8), generator=torch.Generator().manual_seed(0))
    tensors = Quantizer(model=model, bends=curvature(model, ids)).codes(0.01)
    write_artifact(model.config, tensors, tmp_path / "a.wba")
    network, again = open_artifact(tmp_path / "a.wba")
    assert network.config == model.config and again.keys() == tensors.keys()
    assert torch.equal(network(ids), with_values(model, tensors)(ids))


def test_every_kind_of_grid_is_stored(tiny_network_shared, tmp_path):
    tensors = mixed(tiny_network_shared)
    account = write_artifact(tiny_network_shared.config, tensors, tmp_path / "a.wba")
    assert sum(account.values()) == (tmp_path / "a.wba").stat().st_size
    network, again = open_artifact(tmp_path / "a.wba")
    held = {name: each for name, each in tensors.items() if isinstance(each, Codes)}
    assert all(again[name].saturated == each.saturated for name, each in held.items())
    assert any(each.saturated > 0 for each in held.values())
    expected = with_values(tiny_network_shared, tensors).state_dict()
    assert all(torch.equal(expected[n], each) for n, each in network.state_dict().items())


def test_shrunken_values_are_stored(tiny_network_shared, quantizer):
    name = "blocks.1.mlp.fc.weight"
    weight = tiny_network_shared.state_dict()[name]
    made = dead_zone(weight, integer_grid(weight, bits=3), quantizer.factors(name))
    assert 0 < made.grid.shrink < 0.5
    content, _ = pack(quantizer.model.config, {**quantizer.codes(0.01), name: made})
    again = unpack(content)[1][name]
    assert torch.equal(again.values(), made.values())
    with pytest.raises(ValueError, match="shrunken"):
        unpack(with_header(content, lambda header: header["shrinks"].update({name: 0.9})))


def test_a_fresh_process_computes_the_same_logits(quantizer, tmp_path):
    tensors = quantizer.codes(0.01)
    write_artifact(quantizer.model.config, tensors, tmp_path / "a.wba")
    ids = torch.arange(24).reshape(2, 12)
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from workbench.quantization.artifact import open_artifact\n"
        "model, _ = open_artifact(sys.argv[1])\n"
        "with torch.inference_mode(): out = model(torch.arange(24).reshape(2, 12))\n"
        "sys.stdout.buffer.write(out.numpy().tobytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.wba")], capture_output=True, check=True
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        mine = with_values(quantizer.model, tensors)(ids).numpy()
    torch.set_num_threads(threads)
    assert done.stdout == mine.tobytes()


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_is_refused(content, tmp_path, data):
    cut = data.draw(st.integers(0, len(content) - 1), label="cut")
    flipped = bytearray(content)
    flipped[cut] ^= data.draw(st.integers(1, 255), label="flip")
    for broken in (content[:cut], bytes(flipped), content + b"\0"):
        (tmp_path / "b.wba").write_bytes(broken)
        with pytest.raises(InputError, match="expected an artifact"):
            open_artifact(tmp_path / "b.wba")


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_under_a_checksum_that_fits_gives_a_model_or_an_error(content, data):
    """Whoever writes the checksum too gets finite weights of the stated shape, or is refused."""
    altered = bytearray(content[:-16])
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    try:
        _, tensors = unpack(sealed(bytes(altered)))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return
    assert all(isinstance(each, (Codes, torch.Tensor)) for each in tensors.values())


def with_header(content, change):
    """Rewrite the header of an artifact, and seal it."""
    (length,) = struct.unpack_from("<I", content, 4)
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return sealed(MAGIC + struct.pack("<I", len(text)) + text + content[8 + length : -16])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda h: h["model"].update(d_model=2**20, n_layer=64), "weights in"),
        (lambda h: h["model"].update(n_head=2, n_kv_head=1), "bytes of floats"),
        (lambda h: h.update(kinds=h["kinds"][1:]), "kinds of tensors"),
        (lambda h: h.update(kinds="x" * len(h["kinds"])), "kinds of tensors"),
        (lambda h: h.update(kinds="f" * len(h["kinds"])), "bytes of floats"),
        (lambda h: h.update(kinds="p" * len(h["kinds"])), "no matrix"),
        (lambda h: h["model"].update(n_layer=0), "n_layer"),
        (lambda h: h["model"].update(colour=1), "colour"),
        (lambda h: h["model"].update(recurrence={"first": 0, "last": 1, "passes": 10**9}), "64"),
        (
            lambda h: h["model"].update(n_layer=10**12, recurrence={"first": 0, "last": 10**9}),
            "weights in",
        ),
        (lambda h: h.pop("model"), "model"),
    ],
)
def test_a_header_that_lies_is_refused_by_name(content, tmp_path, change, told):
    (tmp_path / "b.wba").write_bytes(with_header(content, change))
    with pytest.raises(InputError, match=told):
        open_artifact(tmp_path / "b.wba")


def test_smaller_steps_cost_more_bytes_and_a_budget_is_kept(quantizer):
    sizes = [quantizer.bytes(step) for step in (0.001, 0.01, 0.1)]
    assert sizes == sorted(sizes, reverse=True)
    step = quantizer.within(sizes[1])
    assert quantizer.bytes(step) <= sizes[1] < quantizer.bytes(step * 0.9)
    with pytest.raises(InputError, match="at least .* bytes"):
        quantizer.within(100)


def test_finer_steps_come_nearer(quantizer):
    ids = torch.randint(0, 257, (6, 16), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = quantizer.model(ids)
        halves = {
            name: each if name in quantizer.bends else each.half().float()
            for name, each in quantizer.model.state_dict().items()
        }
        tried = [halves, *(quantizer.codes(step) for step in (1e-6, 0.01, 0.1))]
        gaps = [
            float((with_values(quantizer.model, each)(ids) - exact).square().mean())
            for each in tried
        ]
    assert gaps[1] < 1.5 * gaps[0], "as good as the vectors' float16 lets it be"
    assert gaps[1] < gaps[2] < gaps[3]

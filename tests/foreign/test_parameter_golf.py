"""Official checkpoints, in and out: nothing in a file is believed before it is checked."""

import hashlib
import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from workbench.folder import InputError
from workbench.foreign import parameter_golf, read_parameter_golf, write_parameter_golf
from workbench.foreign.parameter_golf_int8 import dequantize, quantize
from workbench.foreign.parameter_golf_log import metrics, notes, setting
from workbench.model import new_network, preset, state
from workbench.text import train_tokenizer, write_shard

SIZES = {"n_layer": 3, "n_head": 4, "n_kv_head": 2, "d_model": 32, "vocab_size": 2100}
LOG = """\
import os
class Hyperparameters:
    rope_base = float(os.environ.get("ROPE_BASE", 5000.0))
    train_seq_len = int(os.environ.get('TRAIN_SEQ_LEN', "1024"))
    log0(f"model_params:{n_params} train_seq_len:{args.train_seq_len}")
====
model_params:NUMBER
train_batch_tokens:4096 train_seq_len:64 iterations:200 warmup_steps:1
seed:1337
warmup_step:1/1
step:0/200 val_loss:6.9076 val_bpb:4.0064 train_time:0ms step_avg:0.00ms
step:1/200 train_loss:6.9249 train_time:466ms step_avg:465.79ms
step:3/200 train_loss:nan train_time:1560ms step_avg:519.98ms
step:50/200 train_loss:4.7118 train_time:22419ms step_avg:448.39ms
step:50/200 val_loss:4.7206 val_bpb:2.7379 train_time:22419ms step_avg:448.39ms
Serialized model: 2383781 bytes
Code size: 47686 bytes
Total submission size int8+zlib: 1034007 bytes
final_int8_zlib_roundtrip val_loss:3.8860 val_bpb:2.2539 eval_time:1618ms
final_int8_zlib_roundtrip_exact val_loss:3.88602764 val_bpb:2.25390151
"""


def network(**changes):
    """Make a network of the official shape whose every weight is drawn; its embedding is large."""
    made = new_network(preset("baseline", **{**SIZES, **changes}), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.4, generator=generator)
    return made.eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A network and the folder it was written to."""
    folder = tmp_path_factory.mktemp("golf")
    made = network()
    return made, folder, write_parameter_golf(made, folder)


@pytest.fixture
def folder(written, tmp_path):
    """A folder of its own with both official files, and a log."""
    for name in ("final_model.pt", "final_model.int8.ptz"):
        (tmp_path / name).write_bytes((written[1] / name).read_bytes())
    count = sum(parameter.numel() for parameter in written[0].parameters())
    (tmp_path / "train.log").write_text(LOG.replace("NUMBER", str(count)), encoding="utf-8")
    return tmp_path


def by_hand(matrix):
    """Quantise as the format says, value by value."""
    integers, scales = [], []
    for row in matrix.astype(np.float32):
        limit = np.float32(np.quantile(np.abs(row).astype(np.float64), 0.9999984))
        scale = max(limit / 127, 1 / 127)
        integers.append([round(float(np.clip(x, -limit, limit) / scale)) for x in row])
        scales.append(scale)
    return np.array(integers), np.array(scales)


def test_the_state_dict_has_official_names_and_dtypes(written):
    made, folder, said = written
    found = torch.load(folder / "final_model.pt", weights_only=True)
    block = ["attn_scale", "mlp_scale", "resid_mix", "attn.q_gain", "attn.c_q.weight"]
    block += ["attn.c_k.weight", "attn.c_v.weight", "attn.proj.weight"]
    block += ["mlp.fc.weight", "mlp.proj.weight"]
    names = [f"blocks.{number}.{name}" for number in range(3) for name in block]
    assert list(found) == ["skip_weights", "tok_emb.weight", *names]
    assert found.pop("tok_emb.weight").dtype == torch.bfloat16
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert all(torch.equal(found[name], state(made)[name]) for name in found)
    assert said["files"] == {path.name: path.stat().st_size for path in folder.iterdir()}


def test_the_artifact_is_the_official_format(written):
    made, folder, said = written
    packed = (folder / "final_model.int8.ptz").read_bytes()
    assert packed[:2] == b"\x78\xda", "zlib at level 9"
    found = torch.load(io.BytesIO(zlib.decompress(packed)), weights_only=True)
    assert list(found) == [
        *("__quant_format__", "quantized", "scales", "dtypes", "passthrough", "qmeta"),
        "passthrough_orig_dtypes",
    ]
    assert found["__quant_format__"] == "int8_clean_per_row_v1"
    assert found["dtypes"] == {"tok_emb.weight": "bfloat16"}
    assert found["qmeta"] == {"tok_emb.weight": {"scheme": "per_row", "axis": 0}}
    kept = {name: str(tensor.dtype) for name, tensor in found["passthrough"].items()}
    control = ("attn_scale", "mlp_scale", "resid_mix", "q_gain", "skip_weights")
    for name, dtype in kept.items():
        is_control = name.rpartition(".")[2] in control
        assert dtype == ("torch.float32" if is_control else "torch.float16"), name
        assert (name in found["passthrough_orig_dtypes"]) != is_control
    assert said["submission_bytes"] == len(packed) and said["code_bytes"] == 0


def test_rows_are_rounded_as_by_hand():
    generator = torch.Generator().manual_seed(3)
    spread = torch.linspace(0.01, 4, 300)[:, None]  # rows below and above the floor of the scale
    matrix = torch.randn(300, 250, generator=generator) * spread
    matrix[7] = 0
    payload = quantize({"blocks.0.mlp.fc.weight": matrix})
    integers, scales = by_hand(matrix.numpy())
    found = payload["quantized"]["blocks.0.mlp.fc.weight"].numpy()
    assert (np.abs(found - integers) <= 1).all() and (found != integers).mean() < 1e-3  # ties
    kept = payload["scales"]["blocks.0.mlp.fc.weight"]
    assert kept.dtype == torch.float16
    np.testing.assert_allclose(kept.float(), scales, rtol=1e-3)
    assert (kept.float() >= 0.00787).all(), "the floor, 1 / 127"
    back = dequantize(payload)["blocks.0.mlp.fc.weight"]
    error = (back - matrix).abs().amax(1).numpy()
    assert (error <= scales * 0.5 + np.abs(matrix.numpy()).max(1) * 1e-3 + 1e-6).all()
    assert "passthrough_orig_dtypes" not in payload


def test_a_matrix_of_more_than_2_to_the_24_values_is_quantised():
    wide = torch.zeros(2**21, 9)  # where the quantile of older versions ended
    wide[:, 0] = 3.0
    found = quantize({"a": wide})
    assert (
        found["quantized"]["a"].shape == wide.shape and found["scales"]["a"].unique().numel() == 1
    )


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"n_layer": 1}])
@pytest.mark.parametrize("suffix", [".pt", ".int8.ptz"])
def test_what_is_written_is_read(tmp_path, changes, suffix):
    made = network(**changes)
    write_parameter_golf(made, tmp_path, embedding_dtype=torch.float32)
    foreign = read_parameter_golf(tmp_path / f"final_model{suffix}")
    assert foreign.network.config == made.config and not foreign.network.training
    ids = torch.arange(40).reshape(2, 20)
    with torch.inference_mode():
        gap = (foreign.network(ids) - made(ids)).abs().max()
    assert gap == 0 if suffix == ".pt" else gap < 0.6
    if suffix != ".pt":  # once quantised, quantised again without loss but of float16
        again = write_parameter_golf(foreign.network, tmp_path / "b", embedding_dtype=torch.float32)
        first = (tmp_path / "final_model.int8.ptz").stat().st_size
        assert abs(again["submission_bytes"] - first) < 0.05 * first


@pytest.mark.parametrize("suffix", [".pt", ".int8.ptz"])
def test_what_no_shape_tells_comes_back(tmp_path, suffix):
    made = network(rope_base=1e6, softcap=12.5)
    write_parameter_golf(made, tmp_path, sequence_length=48)
    foreign = read_parameter_golf(tmp_path / f"final_model{suffix}")
    assert (foreign.network.config, foreign.sequence_length) == (made.config, 48)
    names = ("rope_base", "softcap", "sequence_length")
    assert {foreign.sources[name] for name in names} == {"log"}


def test_sources_tell_weights_log_defaults_and_what_was_given(folder):
    foreign = read_parameter_golf(folder / "final_model.pt")
    assert foreign.sources["n_layer"] == foreign.sources["tie_embeddings"] == "weights"
    assert foreign.sources["sequence_length"] == "log" and foreign.sequence_length == 64
    assert foreign.sources["rope_base"] == "log, default of its script"
    assert foreign.sources["softcap"] == "official default, assumed"
    config = foreign.network.config
    assert (config.rope_base, config.softcap) == (5000.0, 30.0)
    assert {*foreign.sources} == {*vars(config), "sequence_length"}
    raw = (folder / "final_model.pt").read_bytes()
    assert foreign.notes["files"]["final_model.pt"] == hashlib.sha256(raw).hexdigest()
    assert foreign.notes["recorded_bits_per_byte"] == 2.7379
    packed = read_parameter_golf(folder / "final_model.int8.ptz", softcap=15.0, sequence_length=9)
    assert packed.notes["recorded_bits_per_byte"] == 2.25390151
    assert packed.sources["softcap"] == packed.sources["sequence_length"] == "given"
    assert (packed.network.config.softcap, packed.sequence_length) == (15.0, 9)
    (folder / "train.log").unlink()
    alone = read_parameter_golf(folder / "final_model.pt")
    assert alone.sequence_length == 1024 and alone.sources["rope_base"].endswith("assumed")
    assert alone.metrics == [] and alone.notes["recorded_bits_per_byte"] is None


def test_the_rope_base_that_a_log_tells_changes_the_logits(folder):
    ids = torch.arange(30)[None]
    told = read_parameter_golf(folder / "final_model.pt").network(ids)
    (folder / "train.log").unlink()
    assumed = read_parameter_golf(folder / "final_model.pt").network(ids)
    assert (told - assumed).abs().max() > 1e-3


def test_the_log_becomes_metrics():
    lines = metrics(LOG)
    assert lines[0] == {
        "step": 0,
        "tokens": 0,
        "seconds": 0.0,
        "validation_loss": 6.9076,
        "validation_bits_per_byte": 4.0064,
    }
    assert lines[1] == {"step": 1, "tokens": 4096, "seconds": 0.466, "loss": 6.9249, "ms": 466.0}
    assert lines[2] == {"step": 3, "tokens": 12288, "seconds": 1.56, "ms": 547.0}, "no NaN"
    assert [line["step"] for line in lines] == [0, 1, 3, 50]
    assert (lines[3]["loss"], lines[3]["validation_bits_per_byte"]) == (4.7118, 2.7379)
    found = notes(LOG, lines, is_quantized=True)
    assert found["training"] == {"tokens_per_step": 4096, "seed": 1337, "steps": 50}
    assert found["recorded_bytes"]["Total submission size int8+zlib"] == 1034007
    assert found["recorded_bytes"]["Code size"] == 47686


@given(st.text(alphabet="step:0123456789/ val_bpbtrain_lossmsNaInf.-\n", max_size=300))
@example("step:" + "9" * 5000 + "/1 train_loss:1.0\n")
@example("step:1/1 train_loss:" + "9" * 5000 + ".0 train_time:1e999ms\n")
@example("train_batch_tokens:" + "9" * 5000)
def test_any_log_is_read_without_failing(text):
    for line in metrics(text):
        assert all(np.isfinite(value) for value in line.values())
    notes(text, metrics(text), is_quantized=True)
    assert np.isfinite(setting(text, "SEED", 1.0)[0])


@pytest.mark.parametrize(
    ("told", "value"),
    [
        *(("1e6", 1e6), ("1E+6", 1e6), ("10_000.0", 1e4), ("524_288", 524288.0), ("500", 500.0)),
        *(("10k", np.nan), ("1.2.3", np.nan), ("1e", np.nan), ("1e999", np.nan)),
        *(("2**20", np.nan), ("8 * 1024", np.nan)),
    ],
)
def test_numbers_are_read_whole_or_not_at_all(told, value):
    script = f'rope = float(os.environ.get("ROPE_BASE", {told}))'
    quoted = f"rope = float(os.environ.get('ROPE_BASE', '{told}'))"
    for text in (script, quoted):
        found, place = setting(text, "ROPE_BASE", 1.0)
        assert place.startswith("log") and np.array_equal(found, value, equal_nan=True)
    if " " not in told:
        found = setting(f"seed:1 rope_base:{told} x:1", "ROPE_BASE", 1.0)[0]
        assert np.array_equal(found, value, equal_nan=True)


@pytest.mark.parametrize("told", ["10k", "-1.0", "0"])
def test_a_setting_that_is_no_number_is_refused_unless_given(folder, told):
    log = (folder / "train.log").read_text(encoding="utf-8")
    (folder / "train.log").write_text(f"{log}rope_base:{told}\nseed:x1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"train\.log.*rope_base.*-p rope_base VALUE"):
        read_parameter_golf(folder / "final_model.pt")
    foreign = read_parameter_golf(folder / "final_model.pt", rope_base=7e3)
    assert foreign.network.config.rope_base == 7e3


def test_neighbours_are_found_where_the_official_repository_has_them(folder):
    words = "the cat sat on a mat and then slept near old trees by a wide grey river".split()
    documents = [" ".join(words[i % 15 :] + words) for i in range(30)]
    datasets, models = folder / "data" / "datasets" / "books", folder / "data" / "tokenizers"
    models.mkdir(parents=True)
    train_tokenizer(documents, vocab_size=300).save(models)
    (small,) = models.glob("*.model")
    write_shard(datasets / "fineweb_val_000000.bin", [1, 2])
    write_shard(datasets / "fineweb_val_000001.bin", [1, 2])
    foreign = read_parameter_golf(folder / "final_model.pt")
    assert foreign.corpus == datasets and foreign.tokenizer is None, "300 ids are not 2,100"
    given = read_parameter_golf(folder / "final_model.pt", tokenizer=small, corpus=models)
    assert (given.tokenizer, given.corpus) == (small, models)
    write_parameter_golf(network(vocab_size=300), folder / "small")
    (folder / "small" / "data").mkdir()
    (folder / "small" / "data" / "a.model").write_bytes(small.read_bytes())
    near = read_parameter_golf(folder / "small" / "final_model.pt")
    assert near.tokenizer == folder / "small" / "data" / "a.model"
    (folder / "small" / "data" / "b.model").write_bytes(small.read_bytes())
    with pytest.raises(InputError, match=r"ambiguous choice: .*a\.model, .*b\.model.*-p tokenizer"):
        read_parameter_golf(folder / "small" / "final_model.pt")
    other = read_parameter_golf(folder / "small" / "final_model.pt", tokenizer=small)
    assert other.tokenizer == small


def test_a_log_of_another_network_is_passed_over_and_two_are_ambiguous(folder):
    log = (folder / "train.log").read_text(encoding="utf-8")
    (folder / "other.txt").write_text(LOG.replace("NUMBER", "17059912"), encoding="utf-8")
    (folder / "notes.txt").write_text("model_params: none of these", encoding="utf-8")
    assert read_parameter_golf(folder / "final_model.pt").sequence_length == 64
    (folder / "again.log").write_text(log, encoding="utf-8")
    with pytest.raises(InputError, match=r"again\.log, .*train\.log"):
        read_parameter_golf(folder / "final_model.pt")
    chosen = read_parameter_golf(folder / "final_model.pt", log=folder / "train.log")
    assert chosen.sources["sequence_length"] == "log"
    with pytest.raises(InputError, match="No such file"):
        read_parameter_golf(folder / "final_model.pt", log=folder / "absent.log")


def refused(path, content, words="."):
    """Write a file and see it refused; nothing is left beside it."""
    path.write_bytes(content)
    before = sorted(path.parent.iterdir())
    with pytest.raises(InputError, match=words) as caught:
        read_parameter_golf(path)
    assert sorted(path.parent.iterdir()) == before
    assert "\n" not in str(caught.value)


def saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


class Exploit:
    def __reduce__(self):
        return (eval, ("__import__('pathlib').Path('exploited').touch()",))


def test_code_in_a_file_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in (saved({"a": Exploit()}), pickle.dumps({"a": Exploit()})):
        refused(tmp_path / "a.pt", content)
        refused(tmp_path / "a.ptz", zlib.compress(content))
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize("call", [(bytearray, (2**40,)), (torch.FloatTensor, (2**34,))])
def test_what_a_file_may_call_is_limited_to_tensors(tmp_path, call):
    class Call:
        def __reduce__(self):
            return call

    content = saved({"a": torch.ones(2), "b": Call()})
    assert peak(lambda: refused(tmp_path / "a.pt", content, "no part of a tensor")) < 2**22
    refused(tmp_path / "a.ptz", zlib.compress(content), "no part of a tensor")


def test_nothing_may_stand_before_the_archive(tmp_path):
    stream = io.BytesIO()
    torch.save({"a": bytearray(2**20)}, stream, _use_new_zipfile_serialization=False)
    refused(
        tmp_path / "a.pt", stream.getvalue() + saved({"a": torch.ones(2)}), "not at its beginning"
    )


def test_a_log_of_absurd_size_is_refused_at_once(folder):
    os.truncate(folder / "train.log", 2**34)  # a hole: no bytes on the disk
    started = time.process_time()
    with pytest.raises(InputError, match=r"train\.log.*bytes, more than"):
        read_parameter_golf(folder / "final_model.pt")
    assert time.process_time() - started < 8


def test_names_without_end_are_not_read(tmp_path):
    content = saved({"a" * 2**22: torch.ones(2)})
    refused(tmp_path / "a.pt", content, "bytes of names, more than")


def test_what_is_no_plain_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    (tmp_path / "b.ptz").mkdir()
    for name in ("a.pt", "b.ptz"):
        with pytest.raises(InputError, match="no plain file"):
            read_parameter_golf(tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sequence_length": 0}, "sequence_length of 1 token or more; found 0"),
        ({"sequence_length": -5}, "found -5"),
        ({"sequence_length": "x"}, "found 'x'"),
        ({"rope_bass": 1.0}, "rope_base"),
        ({"n_layer": 4}, "missing blocks.3"),
        ({"n_head": 5}, "does not divide"),
    ],
)
def test_every_refusal_names_the_file(folder, settings, words):
    path = folder / "final_model.pt"
    with pytest.raises(InputError, match=words) as caught:
        read_parameter_golf(path, **settings)
    assert caught.value.where == str(path)
    torch.save({"tok_emb.weight": torch.ones(2, 2)}, path)
    with pytest.raises(InputError, match="official names") as caught:
        read_parameter_golf(path)
    assert caught.value.where == str(path)


def test_files_of_another_kind_are_refused(tmp_path, written):
    tensors = torch.load(written[1] / "final_model.pt", weights_only=True)
    pt, ptz = tmp_path / "a.pt", tmp_path / "a.ptz"
    refused(pt, b"")
    refused(ptz, b"")
    refused(pt, saved([1, 2]))
    refused(pt, saved({"a": torch.ones(2)}), "official names")
    refused(pt, saved({**tensors, "extra": torch.ones(2)}), "unexpected extra")
    refused(pt, saved({**tensors, "extra": 3}))
    refused(pt, saved({**tensors, "skip_weights": torch.ones(1, 31)}), "skip_weights is")
    refused(pt, saved({**tensors, "skip_weights": torch.ones(1, 32).long()}), "int64")
    refused(pt, saved({**tensors, "blocks.0.attn.q_gain": torch.ones(())}))
    refused(pt, saved({**tensors, "blocks.0.attn.q_gain": torch.ones(0)}))
    refused(pt, saved({**tensors, "blocks.0.mlp.fc.weight": torch.ones(2**62, 0)}))
    refused(pt, saved({**tensors, "blocks.999999999.attn.q_gain": torch.ones(4)}), "999999999|1000")
    refused(pt, saved({**tensors, "blocks.x.y": torch.ones(4)}))
    refused(pt, saved({**tensors, "skip_weights": torch.ones(1, 32).to_sparse()}))
    refused(ptz, zlib.compress(saved(tensors)))
    refused(ptz, zlib.compress(saved({**quantize(tensors), "__quant_format__": "int4"})), "int4")
    with pytest.raises(InputError, match="No such file"):
        read_parameter_golf(tmp_path / "absent.pt")


def test_a_payload_whose_parts_disagree_is_refused(tmp_path, written):
    tensors = torch.load(written[1] / "final_model.pt", weights_only=True)
    name = "tok_emb.weight"
    for part, value in {
        "scales": {},
        "dtypes": {name: "cuda"},
        "quantized": {name: torch.ones(2100, 32)},
        "passthrough": {},
    }.items():
        refused(tmp_path / "a.ptz", zlib.compress(saved({**quantize(tensors), part: value})))
    spread = {"scales": {name: torch.ones(7, 1)}, "quantized": {name: torch.ones(1, 9).char()}}
    refused(tmp_path / "a.ptz", zlib.compress(saved({**quantize(tensors), **spread})), "scale")


def peak(action):
    """Measure the most memory that Python allocated meanwhile [byte]."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bombs_are_refused_before_they_go_off(tmp_path, written, monkeypatch):
    monkeypatch.setattr(parameter_golf, "INFLATED_BYTES", 2**20)
    path = tmp_path / "a.ptz"
    bomb = zlib.compress(b"\0" * 2**26)
    assert peak(lambda: refused(path, bomb, "too large")) < 2**23
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**26)
    assert peak(lambda: refused(tmp_path / "a.pt", inner.getvalue(), "members larger")) < 2**20
    tensors = torch.load(written[1] / "final_model.pt", weights_only=True)
    wide = torch.ones(1).expand(2**20, 2**20)  # a terabyte in four bytes
    refused(tmp_path / "a.pt", saved({**tensors, "tok_emb.weight": wide}), "larger than the file")
    payload = quantize(tensors)
    payload["quantized"]["tok_emb.weight"] = torch.ones(1).char().expand(2**20, 2**20)
    refused(path, zlib.compress(saved(payload)), "larger than the file")


@pytest.mark.parametrize("limit", [("FILE_BYTES", "a.pt"), ("PACKED_BYTES", "a.ptz")])
def test_a_file_too_large_is_not_read(tmp_path, limit):
    path = tmp_path / limit[1]
    with path.open("wb") as file:
        file.truncate(getattr(parameter_golf, limit[0]) + 1)  # sparse: no bytes on the disk

    def read():
        with pytest.raises(InputError, match="bytes, more than"):
            read_parameter_golf(path)

    assert peak(read) < 2**20


def test_an_error_without_a_message_is_named(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(parameter_golf, "_tensors", fail)
    refused(tmp_path / "a.pt", b"", "MemoryError")


def test_a_stream_must_stand_alone(tmp_path, written):
    packed = (written[1] / "final_model.int8.ptz").read_bytes()
    refused(tmp_path / "a.ptz", packed + bytes(1000), "not alone")  # padding, to look larger
    refused(tmp_path / "a.ptz", packed[:-1], "truncated")


@pytest.mark.parametrize("name", ["final_model.pt", "final_model.int8.ptz"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_and_flipped_files_are_refused_or_the_same(written, tmp_path, name, data):
    content = (written[1] / name).read_bytes()
    path = tmp_path / f"x{name[11:]}"
    refused(path, content[: data.draw(st.integers(0, len(content) - 1))])
    spots = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4))
    flipped = bytearray(content)
    for spot in spots:
        flipped[spot] ^= data.draw(st.integers(1, 255))
    path.write_bytes(flipped)
    try:
        found = read_parameter_golf(path).network
    except InputError:
        return
    whole = read_parameter_golf(written[1] / name).network  # a byte that says nothing was hit
    assert all(torch.equal(t, state(whole)[n]) for n, t in state(found).items())


def test_storage_sizes_that_lie_are_refused(tmp_path, written):
    content = bytearray((written[1] / "final_model.pt").read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        pickled = archive.read("archive/data.pkl")
        rest = {n: archive.read(n) for n in archive.namelist() if not n.endswith("data.pkl")}
    true, lie = (b"J" + struct.pack("<i", size) for size in (2100 * 32, 2**30))
    assert true in pickled
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.replace(true, lie))
        for name, part in rest.items():
            archive.writestr(name, part)
    refused(tmp_path / "a.pt", stream.getvalue())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"value_residual": True}, "value_residual"),
        ({"output_bias": True}, "output_bias True"),
        ({"softcap": None}, "softcap None"),
        ({"norm_eps": 1e-6}, "norm_eps"),
        ({"feedforward_width": 48}, "feedforward_width 48"),
    ],
)
def test_a_network_of_another_shape_is_refused_by_field(tmp_path, changes, field):
    with pytest.raises(InputError, match=field):
        write_parameter_golf(network(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_submission_counts_its_script(tmp_path):
    script = tmp_path / "train_gpt.py"
    script.write_bytes("print('caf\u00e9')\r\n# end\n".encode())
    said = write_parameter_golf(network(), tmp_path / "out", code=script)
    assert said["code_bytes"] == len("print('caf\u00e9')\n# end\n".encode()) == 20 + 1
    packed = (tmp_path / "out" / "final_model.int8.ptz").stat().st_size
    assert said["submission_bytes"] == packed + said["code_bytes"]
    assert said["submission_limit"] == 16_000_000
    with pytest.raises(InputError, match="No such file"):
        write_parameter_golf(network(), tmp_path / "more", code=tmp_path / "absent.py")
    assert not (tmp_path / "more").exists()

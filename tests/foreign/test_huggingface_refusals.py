"""Every way in which a checkpoint can disagree with itself is told by rule, before it is read."""

import json
import os
from pathlib import Path

import pytest
import torch
from huggingface_models import change, ours, rewrite, shard, write_index
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from workbench.folder import InputError
from workbench.foreign import ArchMismatch, family_of, huggingface, read_huggingface
from workbench.model import RopeScaling
from workbench.model.checkpoint import read_tensor

HEADS = ("lm_head.weight", "model.embed_tokens.weight")


def refused(folder):
    """Return the error of reading a folder; not one tensor may have been read for a network."""

    def compared(path, name, **_):  # the two copies of a head may be
        return read_tensor(path, name) if name in HEADS else pytest.fail(f"{name} was read")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface, "read_tensor", compared)
        patch.setattr(huggingface, "assemble", lambda *_: pytest.fail("assembled"))
        with pytest.raises(ArchMismatch) as caught:
            read_huggingface(folder)
    error = caught.value
    assert isinstance(error, InputError) and f"[{error.rule_id}]" in str(error)
    assert error.hint and error.fields
    assert all(set(each) == {"rule_id", "name", "expected", "found"} for each in error.fields)
    return error


def named(error):
    return {each["name"]: (each["expected"], each["found"]) for each in error.fields}


# --- config.json -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "field", "value", "source"),
    [
        ("rope_theta", "rope_base", 10000.0, "Llama default"),
        ("rms_norm_eps", "norm_eps", 1e-6, "Llama default"),
        ("head_dim", "head_width", None, "Llama default"),
        ("num_key_value_heads", "n_kv_head", 4, "Llama default"),
    ],
)
def test_what_may_be_absent_is_named_as_a_default(key, field, value, source, tmp_path):
    ours(tmp_path, n_kv_head=4, norm_eps=1e-5)
    change(tmp_path, without=[key])
    found = read_huggingface(tmp_path)
    assert (getattr(found.network.config, field), found.sources[field]) == (value, source)


@pytest.mark.parametrize(
    "key",
    ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"],
)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_what_is_required_is_named(key, family, tmp_path):
    ours(tmp_path, family)
    change(tmp_path, without=[key])
    error = refused(tmp_path)
    assert error.rule_id == "arch-003" and key in named(error)


def test_qwen2_states_its_key_heads(tmp_path):
    ours(tmp_path, "qwen2")
    change(tmp_path, without=["num_key_value_heads"])
    assert named(refused(tmp_path)) == {"num_key_value_heads": ("a value", "nothing")}


def test_absence_of_the_tie_flag_means_untied(tmp_path):
    ours(tmp_path)  # tied, so there is no head
    change(tmp_path, without=["tie_word_embeddings"])
    error = refused(tmp_path)
    assert error.rule_id == "arch-tie" and named(error)["lm_head.weight"] == ((37, 16), None)


def test_nested_rope_parameters_are_read(tmp_path):
    ours(tmp_path)
    nested = {"rope_theta": 5e5, "rope_type": "default"}
    change(tmp_path, without=["rope_theta"], rope_parameters=nested)
    found = read_huggingface(tmp_path)
    assert (found.network.config.rope_base, found.sources["rope_base"]) == (5e5, "config.json")
    change(tmp_path, rope_scaling={"type": "linear", "factor": 2.0})  # as older files say it
    config = read_huggingface(tmp_path).network.config
    assert (config.rope_base, config.rope_scaling) == (5e5, RopeScaling(type="linear", factor=2.0))


@pytest.mark.parametrize(
    "scaling",
    [
        {"type": "yarn", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "longrope"},
        {"rope_type": "llama3", "factor": 8.0},
        {"rope_type": "linear", "factor": 0.0},
        {"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e6}},
        "linear",
    ],
)
def test_other_rope_scaling_is_refused(scaling, tmp_path):
    ours(tmp_path)
    change(tmp_path, rope_scaling=scaling)
    error = refused(tmp_path)
    assert error.rule_id == "arch-rope" and named(error)["rope_scaling"][1] == scaling


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("quantization_config", {"quant_method": "gptq"}),
        ("hidden_act", "gelu"),
        ("mlp_bias", True),
        ("attention_bias", True),
        ("use_sliding_window", True),
        ("use_mrope", True),
        ("partial_rotary_factor", 0.5),
        ("layer_types", ["full_attention", "sliding_attention"]),
    ],
)
def test_settings_that_mean_another_computation_are_refused(setting, value, tmp_path):
    ours(tmp_path)
    change(tmp_path, **{setting: value})
    error = refused(tmp_path)
    assert error.rule_id == "arch-setting" and named(error)[setting][1] == value


def test_harmless_settings_pass(tmp_path):
    ours(tmp_path, "qwen2")
    change(
        tmp_path,
        **{"sliding_window": 32768, "use_sliding_window": False, "max_window_layers": 24},
        **{"quantization_config": None, "attention_dropout": 0.0, "use_cache": True},
        layer_types=["full_attention"] * 3,
    )
    read_huggingface(tmp_path)


def test_mistral_is_a_llama_where_its_window_is_off(tmp_path):
    ours(tmp_path)
    change(tmp_path, model_type="mistral", architectures=["MistralForCausalLM"])
    for window in (16, "64", True):
        change(tmp_path, sliding_window=window)
        assert named(refused(tmp_path)).keys() == {"sliding_window"}
    change(tmp_path, without=["max_position_embeddings"], sliding_window=16)
    assert "sequence_length, not stated" in str(refused(tmp_path))
    change(tmp_path, sliding_window=None)
    assert read_huggingface(tmp_path).notes["family"] == "llama"


def test_a_window_no_shorter_than_the_context_is_none(tmp_path):
    ours(tmp_path)
    change(tmp_path, model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=16)
    assert read_huggingface(tmp_path, sequence_length=16).sequence_length == 16
    with pytest.raises(ArchMismatch, match="at least the sequence_length, 17"):
        read_huggingface(tmp_path, sequence_length=17)
    change(tmp_path, sliding_window=64)
    assert read_huggingface(tmp_path).sequence_length == 64
    with pytest.raises(ArchMismatch, match="sliding_window 64"):
        read_huggingface(tmp_path, sequence_length=65)


def test_what_cannot_be_computed_is_hinted_at_another_way(tmp_path):
    ours(tmp_path, "qwen2")  # with biases, under the name of a family that may have them
    change(tmp_path, model_type="llama", architectures=["LlamaForCausalLM"], attention_bias=True)
    error = refused(tmp_path)
    assert error.rule_id == "arch-setting" and error.fields[0]["name"] == "attention_bias"
    assert "foreign.adapt" in error.hint
    ours(tmp_path)
    change(tmp_path, rope_scaling={"rope_type": "yarn", "factor": 4.0})
    assert "foreign.adapt" in refused(tmp_path).hint
    ours(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({HEADS[1]: tensors[HEADS[1]].char()}))
    assert "foreign.adapt" in refused(tmp_path).hint


@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
def test_a_contradictory_rope_base_is_refused(place, tmp_path):
    ours(tmp_path)
    change(tmp_path, rope_theta=1e4, **{place: {"rope_type": "default", "rope_theta": 5e5}})
    error = refused(tmp_path)
    assert named(error) == {"rope_theta": ("one value", [1e4, 5e5])}
    assert "correct the metadata" in error.hint
    change(tmp_path, rope_theta=5e5)
    assert read_huggingface(tmp_path).network.config.rope_base == 5e5


@pytest.mark.parametrize("key", ["hidden_size", "num_key_value_heads", "head_dim"])
def test_sizes_are_whole_numbers(key, tmp_path):
    ours(tmp_path)
    whole = json.loads((tmp_path / "config.json").read_text())[key]
    change(tmp_path, **{key: float(whole)})
    assert named(refused(tmp_path))[key] == ("a whole number", float(whole))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_true_is_not_one_head(family, tmp_path):
    ours(tmp_path, family, n_head=1, n_kv_head=1, head_width=16)
    change(tmp_path, num_key_value_heads=True)
    assert named(refused(tmp_path))["num_key_value_heads"] == ("a whole number", True)


@pytest.mark.parametrize("sharded", [False, True])
def test_only_a_file_that_is_read_can_be_named(sharded, tmp_path):
    ours(tmp_path)
    if sharded:
        shard(tmp_path)
    else:
        (tmp_path / "model.safetensors.index.json").write_text("{}")  # nothing reads it
    read = {"config.json"} | {each.name for each in tmp_path.glob("*.safetensors")}
    read |= {"model.safetensors.index.json"} if sharded else set()
    for name in ("ema.safetensors", "model.bin", "config.json.bak"):
        (tmp_path / name).write_bytes(b"")
    read_huggingface(tmp_path)
    for each in tmp_path.iterdir():
        if each.name in read:
            read_huggingface(each)
        else:
            with pytest.raises(InputError, match="one of config.json, model"):
                read_huggingface(each)
    for name in ("typo", "typo.safetensors", "config.json/x"):
        with pytest.raises(InputError, match="no file"):
            read_huggingface(tmp_path / name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bos_token_id", 37),
        ("eos_token_id", [2, 151645]),
        ("pad_token_id", -2),
        ("x_token_id", "a"),
    ],
)
def test_special_ids_lie_in_the_vocabulary(key, value, tmp_path):
    ours(tmp_path)
    change(tmp_path, **{key: value})
    error = refused(tmp_path)
    assert error.rule_id == "arch-special-id" and key in named(error)


@pytest.mark.parametrize(
    "content", ["{", "[]", '"llama"', "\xff", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_a_broken_config_is_named(content, tmp_path):
    ours(tmp_path)
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match="config"):
        read_huggingface(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="no file"):
        read_huggingface(tmp_path)


numbers = st.one_of(
    st.integers(-3, 200),
    st.just(10**30),
    st.floats(),
    st.text(max_size=3),
    st.none(),
    st.booleans(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    values=st.dictionaries(
        st.sampled_from(
            "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
            "intermediate_size head_dim rope_theta rms_norm_eps tie_word_embeddings rope_scaling "
            "layer_types bos_token_id model_type architectures".split()
        ),
        numbers | st.lists(numbers, max_size=2),
        min_size=1,
    )
)
def test_any_config_is_loaded_or_refused(values, tmp_path):
    if not (tmp_path / "config.json").exists():
        ours(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    try:
        change(tmp_path, **values)
        network = read_huggingface(tmp_path).network
        assert network(torch.arange(5)[None]).shape == (1, 5, 37)
    except InputError:
        pass
    finally:
        (tmp_path / "config.json").write_text(json.dumps(told))


# --- family ----------------------------------------------------------------------------------

NAME_SETS = {
    "mamba": ["backbone.layers.0.mixer.in_proj.weight"],
    "rwkv": ["rwkv.blocks.0.att.key.weight"],
    "gpt-neox": ["gpt_neox.layers.0.attention.dense.weight"],
    "opt": ["model.decoder.layers.0.self_attn.q_proj.weight"],
    "bert": ["bert.encoder.layer.0.attention.self.query.weight"],
    "qwen3": ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_norm.weight"],
    "qwen2": ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.bias"],
    "llama": ["model.layers.0.self_attn.q_proj.weight"],
    "gpt2": ["transformer.h.0.attn.c_attn.weight"],
    "phi3": ["model.layers.0.self_attn.qkv_proj.weight"],
    "unknown": ["blocks.0.attn.c_q.weight", "tok_emb.weight"],
}


@pytest.mark.parametrize("family", NAME_SETS)
def test_family_from_names(family):
    assert family_of(["model.embed_tokens.weight", *NAME_SETS[family]]) == family


@pytest.mark.parametrize(
    ("made", "stamped"), [("qwen2", "llama"), ("llama", "qwen2"), ("qwen3", "qwen2")]
)
def test_metadata_over_tensors_of_another_family_is_refused(made, stamped, tmp_path):
    ours(tmp_path, made)
    change(tmp_path, model_type=stamped, architectures=[f"{stamped.capitalize()}ForCausalLM"])
    error = refused(tmp_path)
    assert error.rule_id == "arch-family"
    assert (error.family_found, error.family_expected) == (made, stamped)
    assert f"{stamped.capitalize()}ForCausalLM" in str(error) and "left out" in error.hint


def test_metadata_that_contradicts_itself_is_refused(tmp_path):
    ours(tmp_path)
    change(tmp_path, model_type="qwen2")
    assert refused(tmp_path).rule_id == "arch-family"


def test_without_metadata_the_names_decide(tmp_path):
    ours(tmp_path, "qwen3")
    change(tmp_path, without=["model_type", "architectures"])
    assert read_huggingface(tmp_path).notes["family"] == "qwen3"


@pytest.mark.parametrize(
    ("metadata", "rule"),
    [
        ({"model_type": "roberta", "architectures": ["RobertaModel"]}, "arch-007"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "arch-007"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "arch-007"),
        ({"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}, "arch-unsupported"),
        ({"model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"]}, "arch-unsupported"),
        ({"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}, "arch-unsupported"),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "arch-unsupported"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "arch-unsupported"),
    ],
)
def test_other_kinds_of_model_are_refused(metadata, rule, tmp_path):
    ours(tmp_path)
    change(tmp_path, **metadata)
    error = refused(tmp_path)
    assert error.rule_id == rule
    if rule == "arch-007":
        told = (metadata.get("architectures") or [metadata["model_type"]])[0]
        sizes = ("hidden_size 16", "num_hidden_layers 3", "vocab_size 37")
        for part in ("arch-007", "Encoder", "decoder-only", told, *sizes):
            assert part in str(error), part


# --- tensors ---------------------------------------------------------------------------------


def test_all_fields_that_disagree_are_named_at_once(tmp_path):
    ours(tmp_path)
    change(tmp_path, vocab_size=40, intermediate_size=99, num_hidden_layers=5)
    error = refused(tmp_path)
    assert error.rule_id == "arch-shape" and named(error) == {
        "vocab_size": (37, 40),
        "intermediate_size": (24, 99),
        "num_hidden_layers": (3, 5),
    }
    assert all(name in str(error) for name in named(error))


def test_head_counts_are_checked(tmp_path):
    ours(tmp_path)
    change(tmp_path, num_key_value_heads=4)
    assert named(refused(tmp_path)) == {"num_key_value_heads": (2, 4)}
    change(tmp_path, num_key_value_heads=2, num_attention_heads=2)
    assert named(refused(tmp_path)) == {"num_attention_heads": (4, 2)}


def test_all_tensors_that_disagree_are_named_at_once(tmp_path):
    ours(tmp_path, "qwen2")

    def edit(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(24, 15)
        tensors["model.layers.2.self_attn.k_proj.bias"] = torch.zeros(9)
        tensors["model.norm.weight"] = torch.zeros(16, dtype=torch.int8)
        tensors["model.layers.0.self_attn.o_proj.bias"] = torch.zeros(16)
        del tensors["model.layers.1.post_attention_layernorm.weight"]

    rewrite(tmp_path, edit)
    assert named(refused(tmp_path)) == {
        "model.layers.1.mlp.up_proj.weight": ((24, 16), (24, 15)),
        "model.layers.2.self_attn.k_proj.bias": ((8,), (9,)),
        "model.norm.weight": ("one of F32, F16, BF16", "I8"),
        "model.layers.0.self_attn.o_proj.bias": ("no tensor", (16,)),
        "model.layers.1.post_attention_layernorm.weight": ((16,), None),
    }


def test_tensors_of_nothing_known_are_named(tmp_path):
    ours(tmp_path)
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert "model.embed_tokens.weight" in named(refused(tmp_path))


@pytest.mark.parametrize("number", [7, 999_999_999])
def test_layers_with_a_gap_are_named(number, tmp_path):
    ours(tmp_path)
    prefix = "model.layers.2."
    rewrite(
        tmp_path,
        lambda tensors: [
            tensors.update({f"model.layers.{number}.{name[len(prefix) :]}": tensors.pop(name)})
            for name in list(tensors)
            if name.startswith(prefix)
        ],
    )
    assert "model.layers.2.mlp.up_proj.weight" in named(refused(tmp_path))


def test_a_head_that_is_not_the_embedding_is_refused(tmp_path):
    ours(tmp_path)
    rewrite(tmp_path, lambda t: t.update({"lm_head.weight": torch.ones(37, 16)}))
    error = refused(tmp_path)
    assert error.rule_id == "arch-tie" and "equal" in named(error)["lm_head.weight"][0]


def test_an_untied_head_is_never_made_up(tmp_path):
    ours(tmp_path, tie_embeddings=False)
    rewrite(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    assert refused(tmp_path).rule_id == "arch-tie"


# --- files -----------------------------------------------------------------------------------


def test_without_safetensors_nothing_is_loaded(tmp_path):
    ours(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    error = refused(tmp_path)
    assert error.rule_id == "weights-missing" and "pytorch_model.bin" in str(error)


NORM = "model.norm.weight"


def lose(index, folder):
    (folder / "model-00002-of-00003.safetensors").unlink()


def escape(index, folder):
    index["weight_map"][NORM] = "../model-00001-of-00003.safetensors"


def absolute(index, folder):
    index["weight_map"][NORM] = str(folder / "model-00001-of-00003.safetensors")


def move(index, folder):
    files = sorted(set(index["weight_map"].values()))
    now = index["weight_map"][NORM]
    index["weight_map"][NORM] = next(each for each in files if each != now)


def forget(index, folder):
    del index["weight_map"][NORM]


def double(index, folder):
    file = next(f for f in index["weight_map"].values() if f != index["weight_map"][NORM])
    held = {name: each.clone() for name, each in load_file(folder / file).items()}
    save_file(held | {NORM: torch.ones(16)}, folder / file)


def miscount(index, folder):
    index["metadata"]["total_size"] += 1


def empty(index, folder):
    index["weight_map"] = [NORM]


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lose, "shard-missing"),
        (escape, "shard-escape"),
        (absolute, "shard-escape"),
        (move, "shard-absent"),
        (forget, "shard-unmapped"),
        (double, "shard-duplicate"),
        (miscount, "shard-size"),
        (empty, "shard-index"),
    ],
)
def test_an_index_that_lies_is_refused(edit, rule, tmp_path):
    ours(tmp_path)
    index = shard(tmp_path)
    edit(index, tmp_path)
    write_index(tmp_path, index)
    assert refused(tmp_path).rule_id == rule


@pytest.mark.parametrize(
    ("edit", "rule"),
    [(lose, "shard-missing"), (escape, "shard-escape"), (forget, "shard-unmapped")],
)
def test_what_the_names_tell_is_recorded_even_where_shards_are_refused(edit, rule, tmp_path):
    ours(tmp_path, "qwen2")
    index = shard(tmp_path)
    edit(index, tmp_path)
    write_index(tmp_path, index)
    error = refused(tmp_path)
    assert (error.rule_id, error.family_found) == (rule, "qwen2")
    assert error.hf_architecture == "Qwen2ForCausalLM" and str(tmp_path) in str(error)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"vocab_size": 40}, "arch-shape"),
        ({"rope_scaling": {"type": "yarn"}}, "arch-rope"),
        ({"hidden_act": "gelu"}, "arch-setting"),
        ({"bos_token_id": 37}, "arch-special-id"),
        ({"hidden_size": None}, "arch-003"),
        ({"tie_word_embeddings": False}, "arch-tie"),
    ],
)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_records_are_complete(family, changes, rule, tmp_path):
    ours(tmp_path, family)
    change(tmp_path, **changes)
    error = refused(tmp_path)
    assert (error.rule_id, error.family_found, error.family_expected) == (rule, family, family)
    assert error.hf_architecture == f"{family.capitalize()}ForCausalLM"
    assert str(tmp_path) in error.where


@pytest.mark.parametrize("length", [0, -1, 1.5, "64"])
def test_a_context_that_is_no_number_of_tokens_is_refused(length, tmp_path):
    ours(tmp_path)
    with pytest.raises(InputError, match="sequence_length of 1 token or more") as caught:
        read_huggingface(tmp_path, sequence_length=length)
    assert caught.value.where == str(tmp_path) and repr(length) in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    ("put", "words"),
    [
        (Path.mkdir, "no plain file"),
        (os.mkfifo, "no plain file"),
        (lambda path: path.symlink_to("/dev/zero"), "no plain file"),
        (lambda path: path.symlink_to(path), "symbolic links|no file|weights-missing"),
        (lambda path: path.write_text("") or os.truncate(path, 2**34), "bytes, more than"),
    ],
)
def test_what_never_ends_is_not_read(name, put, words, tmp_path):
    ours(tmp_path)
    shard(tmp_path)
    (tmp_path / name).unlink()
    put(tmp_path / name)
    with pytest.raises(InputError, match=words) as caught:
        read_huggingface(tmp_path)
    assert str(tmp_path) in caught.value.where
    with pytest.raises(InputError):
        read_huggingface(tmp_path / name)


def test_weights_that_are_a_pipe_are_no_weights(tmp_path):
    ours(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model.safetensors")
    assert refused(tmp_path).rule_id == "weights-missing"


def test_a_shard_of_an_impossible_name_is_missing(tmp_path):
    ours(tmp_path)
    index = shard(tmp_path)
    for name in ("x" * 300, "a\0b"):
        index["weight_map"][NORM] = name
        write_index(tmp_path, index)
        assert refused(tmp_path).rule_id == "shard-missing"


def test_layers_without_number_are_not_made(tmp_path):
    ours(tmp_path)
    more = {f"model.layers.{at}.x": torch.zeros(0) for at in range(1001)}
    rewrite(tmp_path, lambda tensors: tensors.update(more))
    assert named(refused(tmp_path)) == {"layers": ("at most 1000", 1001)}


def lying(header, size=64):
    """Return a file with a header of one's own choice."""
    raw = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(raw).to_bytes(8, "little") + raw + bytes(size)


F32 = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (2**62).to_bytes(8, "little") + b"{}",
        lying({"a": F32}, 32),
        lying({"a": F32, "b": F32}),
        lying({"a": {**F32, "data_offsets": [0, 2**60]}}),
        lying({"a": {**F32, "shape": [2**40, 2**40]}}),
        lying({"a": {**F32, "shape": [-4, -4]}}),
        lying({"a": {**F32, "dtype": "PICKLE"}}),
        lying({"a": {**F32, "data_offsets": [64, 0]}}),
        lying(b'{"a": '),
        lying(b"\xff" * 20),
    ],
)
def test_headers_that_lie_are_refused_before_allocation(content, tmp_path):
    ours(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert refused(tmp_path).rule_id == "weights-damaged"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_or_harmless(data, tmp_path):
    if not (tmp_path / "whole").exists():
        ours(tmp_path)
        (tmp_path / "model.safetensors").rename(tmp_path / "whole")
    whole = bytearray((tmp_path / "whole").read_bytes())
    header = 8 + int.from_bytes(whole[:8], "little")
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        for at in data.draw(st.lists(st.integers(0, header - 1), min_size=1, max_size=3)):
            whole[at] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "model.safetensors").write_bytes(whole)
    try:
        network = read_huggingface(tmp_path).network
    except InputError:
        return
    assert network(torch.arange(5)[None]).shape == (1, 5, 37)  # flips in the metadata alone

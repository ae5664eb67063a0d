import json
from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
import pytest

from workbench import diagnostics, readings
from workbench.__main__ import main
from workbench.diagnostics import Check, check_table
from workbench.folder import InputError
from workbench.model import cache_bytes, n_parameter, new_network, preset
from workbench.result import check, open_tree, save
from workbench.training import train_config

MODULE = import_module("workbench.diagnostics.preflight")  # the package has a function so named
CONFIG = preset("demo", n_layer=2, d_model=16, vocab_size=257)


def schedule(**settings):
    sizes = {"sequence_length": 16, "tokens_per_step": 128, "micro_batches": 2, "steps": 10}
    return train_config(device="cpu", **{"optimizer": {}, **sizes, **settings})


def preflight(data, config=CONFIG, **settings):
    return diagnostics.preflight(config, data, schedule(**settings), seconds=0)


@pytest.fixture(scope="module")
def found(tiny_data):
    return diagnostics.preflight(
        CONFIG, tiny_data, schedule(seconds=1e-6, warmdown_steps=4), seconds=0.05
    )


@pytest.fixture
def quick(monkeypatch):
    """Take the memory of training as known: to find it takes a second."""
    known = dict.fromkeys(["weights", "backward_peak", "update_peak"], 20_000)
    monkeypatch.setattr(MODULE, "training_bytes", lambda config, schedule, tokenizer: known)


def level(groups, name):
    return str(groups["checks"].level.sel(check=name).item())


def test_groups_keep_the_conventions_and_reopen(found, tmp_path):
    assert list(found) == ["parameters", "memory", "deployment", "pace", "phases", "checks"]
    for each in found.values():
        check(each)
    save(found, tmp_path / "preflight.nc", provenance={})
    tree = open_tree(tmp_path / "preflight.nc")
    for name, each in found.items():
        assert tree[name].to_dataset().identical(each), name


def test_numbers_are_those_of_their_owners(found):
    assert found["parameters"]["count"].sum() == n_parameter(CONFIG)
    deployment = found["deployment"]
    cache = cache_bytes(CONFIG, context=16)
    assert deployment.cache == cache
    wanted = [n_parameter(CONFIG) * bits // 8 + cache for bits in deployment.setting.values]
    np.testing.assert_array_equal(deployment.memory, wanted)
    assert (np.diff(deployment.artifact) > 0).all()


def test_arithmetic_is_counted_once_however_long_the_run(tiny_data, quick, monkeypatch):
    """It makes a network without data each time: at every update, minutes of a long plan."""
    counted, count = [], MODULE.flops_per_token
    monkeypatch.setattr(
        MODULE,
        "flops_per_token",
        lambda *args, **more: counted.append(more) or count(*args, **more),
    )
    assert "phases" in preflight(tiny_data, steps=500)
    assert len(counted) == 1


def test_time_limit_cuts_the_steps(found):
    pace = found["pace"]
    assert pace.steps == 1
    assert pace.training == pace.step
    assert pace.tokens == 128
    assert pace.rate == pytest.approx(float(pace.flops) * 128 / float(pace.step))


@pytest.mark.usefixtures("quick")
def test_without_calibration_no_time_is_told(tiny_data):
    assert "pace" not in preflight(tiny_data)


def test_a_budget_that_is_too_short_is_seen(found):
    checks = found["checks"]
    assert (checks.level != "ok").any() and found["phases"].ends_at.max() > 0


@pytest.mark.usefixtures("quick")
def test_text_read_too_often(tiny_data):
    per_step = 128 / len(tiny_data.train.ids)
    assert level(preflight(tiny_data, steps=int(3.9 / per_step)), "repeats") == "ok"
    often = preflight(tiny_data, steps=int(4.1 / per_step) + 1)
    assert level(often, "repeats") == "warning"
    assert "found?" in readings.checks(often["checks"])


@pytest.mark.usefixtures("quick")
def test_artifact_over_the_decimal_cap(tiny_data, monkeypatch):
    planted = {4: 9_000_000, 5: 15_900_000, 6: 16_000_001, 8: 16 * 2**20}

    def forecast(config, *, bits):
        return planted[bits]

    monkeypatch.setattr(MODULE, "gaussian_bytes", forecast)
    groups = preflight(tiny_data)
    assert level(groups, "artifact") == "warning"
    assert "fits at 4 bits, 5 bits." in groups["checks"].remedy.sel(check="artifact").item()
    planted.update(dict.fromkeys(planted, 16_672_358))  # 15.9 binary megabytes: over
    groups = preflight(tiny_data)
    assert level(groups, "artifact") == "warning", "whoever wants no such file may train"
    assert "no width" in groups["checks"].remedy.sel(check="artifact").item()


@pytest.mark.usefixtures("quick")
def test_machine_that_is_too_small(tiny_data, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    groups = preflight(tiny_data)
    assert groups["memory"].available == 10_000
    assert level(groups, "memory") == "error"


@pytest.mark.usefixtures("quick")
def test_faults_of_byte_counts_are_checks(tiny_data):
    ids = tiny_data.validation.ids
    broken = replace(tiny_data.validation, ids=ids[ids != tiny_data.tokenizer.bos])
    groups = preflight(replace(tiny_data, validation=broken))
    assert level(groups, "no_document_boundary") == "warning"


def test_tokenizer_that_does_not_fit_is_refused(tiny_data):
    with pytest.raises(InputError, match="at most 64 rows"):
        preflight(tiny_data, config=replace(CONFIG, vocab_size=64))


@pytest.mark.usefixtures("quick")
def test_phases_that_go_wrong_and_settings_that_do_nothing_are_checks(tiny_data):
    make = partial(new_network, seed=0)

    def judged(**settings):
        told = {"warmdown_steps": 4, "optimizer": {"momentum_warmup_steps": 4}, **settings}
        return diagnostics.preflight(CONFIG, tiny_data, schedule(**told), seconds=0, make=make)

    healthy = judged()
    assert not {"error", "warning"} & set(healthy["checks"].level.values)
    diagnostics.refuse(healthy["checks"])
    assert healthy["phases"].begins.sel(phase="warmdown") == 7
    assert "warmdown from update 8 to 10" in readings.phases(healthy["phases"])
    late = judged(warmup_steps=30)
    assert level(late, "phase warmup") == "error"
    dead = judged(warmdown_steps=0, decay="cosine")
    assert level(dead, "train.decay") == "error"
    with pytest.raises(InputError, match="train.decay: 'cosine' does not fire"):
        diagnostics.refuse(dead["checks"])
    nan = Check(name="x", value=float("nan"), threshold=0, message="m", severity="warning")
    assert nan.level == "warning", "what is not a number is not within a limit"
    assert check_table([]).sizes == {"check": 0}


@pytest.mark.usefixtures("quick")
def test_context_longer_than_documents_is_no_error(tiny_data):
    assert (
        preflight(tiny_data, sequence_length=256, tokens_per_step=512)["checks"].level == "ok"
    ).all()


def test_readings(found, tiny_data):
    said = {name: readings.reading(name, each) for name, each in found.items()}
    assert said["parameters"].startswith(f"{n_parameter(CONFIG):,} in all: embedding 4,112 (")
    assert "head" not in said["parameters"]  # it is the embedding
    assert "backward peak" in said["memory"] and "average" not in said["memory"]
    assert said["deployment"].startswith("artifact, as a forecast")
    assert "for 1 steps, 128 tokens" in said["pace"]
    assert "ok: repeats: 10 steps read" in said["checks"]
    assert "found?" not in said["checks"]


@pytest.mark.parametrize(
    ("count", "wanted"), [(0, "0 B"), (999, "999 B"), (1e3, "1.0 kB"), (2.26e9, "2.3 GB")]
)
def test_sizes(count, wanted):
    assert readings.size(count) == wanted


ARGUMENTS = [
    *("-p", "tokenizer", "bytes", "-p", "sequence_length", "16", "-p", "tokens_per_step", "128"),
    *("-p", "model", "{n_layer: 2, d_model: 16, n_head: 2, n_kv_head: 1}", "--no-calibration"),
]


def test_verb_prints_json_and_leaves_no_run(tiny_data, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which it sets
    arguments = ["preflight", "-p", "corpus", tiny_data.corpus.source, *ARGUMENTS]
    assert main([*arguments, "--format", "json"]) == 0
    groups = json.loads(capsys.readouterr().out)
    assert groups["parameters"]["coords"]["part"]["data"][0] == "embedding"
    assert "pace" not in groups
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("parameters: ")


@pytest.mark.usefixtures("quick")
def test_verb_tells_errors_by_its_status(tiny_data, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    assert main(["preflight", "-p", "corpus", tiny_data.corpus.source, *ARGUMENTS]) == 1
    assert "error: memory: training takes" in capsys.readouterr().out
    assert main(["preflight", "-p", "stesp", "3"]) == 2
    assert "steps" in capsys.readouterr().err

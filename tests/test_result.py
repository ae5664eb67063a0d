"""Labelled results: what the contract refuses, and that a file gives back what was saved."""

import numpy as np
import pytest
import xarray as xr

from workbench.folder import replacing
from workbench.result import DIMS, UNITS, check, difference, open_tree, provenance, save, variable


def healthy():
    return xr.Dataset(
        {
            "alpha": variable(("step", "visit"), [[0.5, np.nan], [0.25, -1.0]], "mix", "1"),
            "count": variable("visit", np.array([3, 4], np.int32), "tokens", "token"),
            "fired": variable("visit", np.array([True, False]), "is dead", "1"),
        },
        coords={
            "block": ("visit", [0, 0]),
            "name": ("visit", ["first", "zweiter \u00fc"]),
            "step": [0, 50],
        },
        attrs={"protocol": "full", "context": 256, "share": 0.5},
    )


def test_a_healthy_result_passes_unchanged():
    result = healthy()
    assert check(result) is result
    assert result.identical(healthy())


@pytest.mark.parametrize(
    ("name", "dims", "attrs", "message"),
    [
        ("x", "layers", {"long_name": "x", "units": "1"}, "unknown dim 'layers'"),
        ("x", "visit", {"units": "1"}, "'x' lacks attrs .*long_name"),
        ("x", "visit", {"long_name": "x"}, "'x' lacks attrs .*units"),
        ("x", "visit", {"long_name": "x", "units": "bits"}, "'x' has unit 'bits'"),
    ],
)
def test_what_breaks_the_contract_is_refused(name, dims, attrs, message):
    broken = healthy().assign({name: xr.Variable(dims, [1.0, 2.0], attrs)})
    with pytest.raises(ValueError, match=message):
        check(broken)


def test_arithmetic_that_drops_units_is_noticed():
    """Xarray drops attrs in arithmetic; such a result must not pass as labelled."""
    with xr.set_options(keep_attrs=False), pytest.raises(ValueError, match="lacks attrs"):
        check(healthy()[["count"]] * 2)


def test_the_glossary_holds_singular_full_words():
    for dim, meaning in DIMS.items():
        assert dim.isidentifier() and dim.islower() and meaning
        assert not dim.endswith("s") or dim.endswith(("ss", "is")), "singular"
    assert len(set(UNITS)) == len(UNITS)


def test_saved_results_come_back_identical(tmp_path):
    path = tmp_path / "diagnosis.nc"
    origin = {"seed": 3, "nested": {"a": [1, None, "\u00e9"]}}
    other = xr.Dataset({"loss": variable((), 1.5, "loss", "nat/token")})
    save({"value_residual": healthy(), "token_loss": other}, path, provenance=origin)
    tree = open_tree(path)
    assert set(tree.children) == {"value_residual", "token_loss"}
    xr.testing.assert_identical(tree["value_residual"].to_dataset(), healthy())
    xr.testing.assert_identical(tree["token_loss"].to_dataset(), other)
    assert tree["value_residual"]["fired"].dtype == bool
    assert provenance(tree) == origin


def test_an_opened_file_is_closed_and_in_memory(tmp_path):
    path = tmp_path / "diagnosis.nc"
    save({"a": healthy()}, path, provenance={})
    tree = open_tree(path)
    save({"a": healthy().isel(visit=[0])}, path, provenance={})  # a locked file would refuse
    path.unlink()
    assert float(tree["a"].alpha.isel(step=0, visit=0)) == 0.5


def test_a_refused_result_leaves_no_file(tmp_path):
    path = tmp_path / "diagnosis.nc"
    broken = healthy().assign(x=xr.Variable("layers", [1.0]))
    with pytest.raises(ValueError, match="layers"), replacing(path) as scratch:
        save({"a": healthy(), "b": broken}, scratch, provenance={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"not netCDF at all"])
def test_a_file_that_is_no_result_raises(tmp_path, content):
    path = tmp_path / "diagnosis.nc"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OSError):
        open_tree(path)


def test_a_tree_without_provenance_has_none():
    assert provenance(xr.DataTree()) == {}


def test_a_difference_subtracts_and_widens_and_refuses_what_was_measured_elsewhere():
    def made(level: float, **attrs: str) -> xr.Dataset:
        data = {
            "cost": variable("visit", [level, 1.0], "cost", "bit"),
            "cost_standard_error": variable("visit", [3.0, 0.0], "its error", "bit"),
            "verdict": variable("visit", ["free", "needed"], "verdict"),
        }
        return xr.Dataset(data, coords={"visit": [0, 1]}, attrs=attrs)

    found = difference(made(5.0), made(2.0).assign(cost_standard_error=("visit", [4.0, 0.0])))
    assert found.cost.values.tolist() == [3.0, 0.0] and "verdict" not in found
    assert found.cost_standard_error.values.tolist() == [5.0, 0.0] and found.attrs["compared"] == 1
    difference(made(5.0, measured_tokens="all"), made(2.0))  # an older one does not say
    with pytest.raises(ValueError, match="measured on corpus a and on corpus b"):
        difference(made(5.0, measured_corpus="a"), made(2.0, measured_corpus="b"))

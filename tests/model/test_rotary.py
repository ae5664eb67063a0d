"""Rotation as multiplication of complex numbers, and the stretching of its frequencies."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.model import RopeScaling
from workbench.model.rotary import Rotary


@pytest.mark.parametrize("direction", [-1, 1])
def test_pairs_turn_like_complex_numbers(direction):
    x = torch.randn(2, 3, 11, 8, generator=torch.Generator().manual_seed(0))
    found = Rotary(8, 100.0, direction=direction)(x).numpy()
    pairs = x[..., :4].numpy() + 1j * x[..., 4:].numpy()
    angle = np.arange(11)[:, None] * 100.0 ** (-np.arange(4) / 4)
    turned = pairs * np.exp(direction * 1j * angle)
    np.testing.assert_allclose(found, np.concatenate([turned.real, turned.imag], -1), atol=1e-5)


@given(direction=st.sampled_from([-1, 1]), shift=st.integers(1, 20))
def test_products_depend_on_the_distance_alone(direction, shift):
    generator = torch.Generator().manual_seed(shift)
    q, k = torch.randn(2, 8, generator=generator)
    rotary = Rotary(8, 50.0, direction=direction)
    queries, keys = (rotary(each.expand(1, 1, 40, 8))[0, 0] for each in (q, k))
    near, far = float(queries[9] @ keys[4]), float(queries[9 + shift] @ keys[4 + shift])
    assert near == pytest.approx(far, abs=1e-4)


def test_the_direction_matters_to_trained_weights():
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    scores = []
    for direction in (-1, 1):
        rotary = Rotary(8, 50.0, direction=direction)
        queries, keys = (rotary(each.expand(1, 1, 9, 8))[0, 0] for each in (q, k))
        scores.append(float(queries[8] @ keys[2]))
    assert abs(scores[0] - scores[1]) > 0.1


def test_linear_scaling_is_a_slower_position():
    x = torch.randn(1, 1, 41, 8, generator=torch.Generator().manual_seed(0))
    stretched = Rotary(8, 50.0, scaling=RopeScaling(type="linear", factor=4.0))(x)
    at = torch.zeros_like(x)
    at[:, :, 10] = x[:, :, 40]
    torch.testing.assert_close(stretched[:, :, 40], Rotary(8, 50.0)(at)[:, :, 10])


@given(
    factor=st.floats(1, 32),
    low=st.floats(0.5, 2),
    ratio=st.floats(1.5, 8),
    context=st.integers(16, 8192),
)
def test_llama3_scaling_against_its_piecewise_definition(factor, low, ratio, context):
    high = low * ratio
    scaling = RopeScaling(
        type="llama3",
        factor=factor,
        low_frequency_factor=low,
        high_frequency_factor=high,
        original_context=context,
    )
    plain = Rotary(64, 500_000.0).frequency
    for before, after in zip(plain.tolist(), scaling.scaled(plain).tolist(), strict=True):
        wavelength = 2 * math.pi / before
        if wavelength > context / low:
            expected = before / factor
        elif wavelength < context / high:
            expected = before
        else:
            smooth = (context / wavelength - low) / (high - low)
            expected = (1 - smooth) * before / factor + smooth * before
        assert after == pytest.approx(expected, rel=1e-4)


def test_frequencies_are_real_where_parameters_are_not():
    with torch.device("meta"):
        rotary = Rotary(8, 100.0)
    assert torch.equal(rotary.frequency, Rotary(8, 100.0).frequency)
    assert not rotary.state_dict()

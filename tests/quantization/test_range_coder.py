"""The range coder: what is read is what was written, in hardly more than its entropy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from workbench.quantization.range_coder import Coder, code_matrix

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 9))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        SHAPES.flatmap(
            lambda shape: arrays(
                np.int64,
                shape,
                elements=st.one_of(st.integers(-3, 3), st.integers(-(2**31) + 99, 2**31 - 99)),
            )
        ),
        max_size=3,
    ),
    st.lists(st.integers(-500, 500), max_size=9),
)
def test_every_integer_comes_back(matrices, numbers):
    writer = Coder()
    for each in matrices:
        code_matrix(writer, each.shape, each)
    writer.numbers(np.array(numbers, dtype=np.int64), len(numbers))
    reader = Coder(writer.words())
    for each in matrices:
        np.testing.assert_array_equal(code_matrix(reader, each.shape, None), each)
    assert reader.numbers(None, len(numbers)).tolist() == numbers
    assert reader.bits == pytest.approx(writer.bits)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 4.0])
def test_length_is_within_one_per_cent_of_the_entropy(deviation):
    codes = np.round(np.random.default_rng(0).laplace(scale=deviation, size=(600, 400)))
    _, count = np.unique(codes, return_counts=True)
    share = count / count.sum()
    entropy = -(share * np.log2(share)).sum() * codes.size / 8
    writer = Coder()
    code_matrix(writer, codes.shape, codes.astype(np.int64))
    assert 4 * len(writer.words()) < 1.01 * entropy + 300, "and the mean of every row"
    assert 4 * len(writer.words()) == pytest.approx(writer.bits / 8, rel=0.002, abs=8)


def test_scales_of_rows_and_columns_are_learned():
    """A matrix whose rows and columns differ costs what knowing both scales would cost."""
    random = np.random.default_rng(1)
    scale = np.exp(random.normal(size=(500, 1))) * np.exp(random.normal(size=(1, 300)))
    codes = np.round(random.laplace(scale=2 * scale)).astype(np.int64)
    wide = 2 * scale
    share = np.where(
        codes == 0,
        -np.expm1(-0.5 / wide),
        0.5 * np.exp(-(np.abs(codes) - 0.5) / wide) * -np.expm1(-1 / wide),
    )
    ideal = -np.log2(share).sum() / 8
    writer = Coder()
    code_matrix(writer, codes.shape, codes)
    assert 4 * len(writer.words()) < 1.04 * ideal
    pooled = np.bincount(np.abs(codes).ravel()) / codes.size
    pooled = pooled[pooled > 0]
    blind = (-(pooled * np.log2(pooled)).sum() + (codes != 0).mean()) * codes.size / 8
    assert 4 * len(writer.words()) < 0.9 * blind


def test_zeros_are_nearly_free():
    writer = Coder()
    code_matrix(writer, (400, 400), np.zeros((400, 400), dtype=np.int64))
    assert 4 * len(writer.words()) < 400

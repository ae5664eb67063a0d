"""RQ4: its published levels, its 18 bytes, and its faults."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate
from scipy.stats import beta

from workbench.folder import InputError
from workbench.quantization.codebook import Blocks, levels, pack_blocks, rq4, unpack_blocks

PUBLISHED = (0.00492020, 0.01488395, 0.02524078, 0.03634204)
PUBLISHED += (0.04873108, 0.06342665, 0.08296703, 0.12281943)
MATRICES = arrays(np.float32, (4, 32), elements=st.floats(-8000, 8000, width=32))


def test_levels_are_the_published_ones_and_the_means_of_their_bins():
    np.testing.assert_allclose(levels()[8:], PUBLISHED, atol=1e-5)
    np.testing.assert_allclose(levels(), -levels()[::-1], atol=1e-7)
    edges = 2 * beta.ppf(np.arange(17) / 16, 127.5, 127.5) - 1
    density = beta(127.5, 127.5, loc=-1, scale=2).pdf
    for at in range(8, 16):
        mean, _ = integrate.quad(lambda x: x * density(x), edges[at], min(edges[at + 1], 0.6))
        assert levels()[at] == pytest.approx(16 * mean, rel=1e-4)


@given(MATRICES, st.booleans())
def test_it_is_packed_in_18_bytes_a_block_and_reads_back(values, search):
    found = rq4(torch.from_numpy(values), search=search)
    content = pack_blocks(found)
    assert len(content) == 18 * 4
    again = unpack_blocks(content, (4, 32))
    assert torch.equal(again.index, found.index) and torch.equal(again.values(), found.values())


@given(MATRICES)
def test_it_is_idempotent_and_errs_by_half_the_widest_gap(values):
    weight = torch.from_numpy(values)
    found = rq4(weight)
    again = rq4(found.values())
    # The last level may round to another float16 scale: values stay, to float16 precision.
    torch.testing.assert_close(again.values(), found.values(), rtol=2e-3, atol=1e-6)
    widest = float(np.diff(levels()).max()) / 2
    scale = found.scale.float()[:, None]
    assert bool(((found.values() - weight).abs() <= (widest + 1e-3) * scale + 1e-6).all())


def test_a_searched_scale_lowers_the_error_as_published():
    weight = torch.randn(512, 256, generator=torch.Generator().manual_seed(0))
    errors = [
        float((rq4(weight, search=search).values() - weight).square().mean())
        for search in (False, True)
    ]
    assert errors == pytest.approx([0.0085, 0.0069], abs=2e-4)


def test_zeros_stay_zeros_and_what_does_not_fit_is_refused():
    assert (rq4(torch.zeros(2, 32)).values() == 0).all()
    for broken in (torch.zeros(3, 5), torch.full((1, 32), torch.inf)):
        with pytest.raises(InputError, match="a multiple of 32"):
            rq4(broken)
    with pytest.raises(ValueError, match="bytes for a matrix"):
        unpack_blocks(b"\0" * 17, (1, 32))
    with pytest.raises(ValueError, match="not finite"):
        unpack_blocks(b"\xff" * 18, (1, 32))
    assert isinstance(unpack_blocks(b"\0" * 18, (1, 32)), Blocks)

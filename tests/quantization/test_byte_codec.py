"""General compressors on one symbol a byte, against published ratios to the entropy."""

import numpy as np
import pytest
import torch

from workbench.quantization.byte_codec import CODECS, codec_bytes, entropy_bytes
from workbench.quantization.grid import Codes, Grid, integer_grid, nearest


@pytest.fixture(scope="module")
def gaussian():
    weight = torch.randn(1024, 512, generator=torch.Generator().manual_seed(0))
    return nearest(weight, integer_grid(weight, bits=6, deviations=12.85))


@pytest.mark.parametrize(("codec", "ratio"), [("zlib", 1.158), ("brotli", 1.014), ("lzma", 1.052)])
def test_ratios_are_the_published_ones(gaussian, codec, ratio):
    scales = 2 * 1024
    found = (codec_bytes({"w": gaussian}, codec) - scales) / entropy_bytes(gaussian)
    assert found == pytest.approx(ratio, abs=0.02)


def test_the_better_order_is_taken():
    """Columns of one symbol each: by columns they are runs."""
    codes = torch.arange(64).repeat(256, 1).int()
    found = Codes(codes=codes, grid=Grid(row_scale=torch.ones(256, 1)))
    by_rows = len(CODECS["zlib"](codes.numpy().astype(np.int8).tobytes()))
    assert codec_bytes({"w": found}, "zlib") <= by_rows + 512


def test_codes_beyond_a_byte_are_refused():
    with pytest.raises(ValueError, match="beyond a byte"):
        loud = Codes(codes=torch.tensor([[128]]).int(), grid=Grid(row_scale=torch.ones(1, 1)))
        codec_bytes({"w": loud}, "zlib")


def test_scales_and_plain_tensors_count(gaussian):
    """Noise does not compress: its float16 numbers are there in full."""
    noise = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    alone = codec_bytes({"w": gaussian}, "brotli")
    both = codec_bytes({"w": gaussian, "v": noise}, "brotli")
    assert 0.85 < (both - alone) / (2 * 5000) < 1.01

from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from scripts.export.formats import files_of, limit_in_bytes, require_within


def sentence(limit, size, weights, format, precision):
    with pytest.raises(UserError) as caught:
        require_within(limit, size, weights, format=format, precision=precision)
    return str(caught.value)


def test_over_the_limit_names_what_would_fit():
    """40 million weights: 160, 80 and 40 MB; the header of 1 MB is counted for each."""
    text = sentence(100_000_000, 161_000_000, 40_000_000, "safetensors", "fp32")
    assert text.startswith("safetensors in fp32 takes 161.00 MB (153.54 MiB), more than the limit of 100 MB")
    assert "by 61,000,000 bytes: choose --precision fp16 (about 81 MB; safetensors, onnx, openvino)" in text
    assert "or --precision bf16 (about 81 MB; safetensors) or --precision int8 (about 41 MB; onnx, openvino)" in text
    text = sentence(81_000_000 - 1, 161_000_000, 40_000_000, "onnx", "fp32")
    assert "--precision int8" in text
    assert "--precision fp16" not in text
    assert "no format fits, so raise --limit_mb" in sentence(10, 161_000_000, 40_000_000, "onnx", "int8")
    text = sentence(1_000, 500_000_001, 125_000_000, "safetensors", "fp32")
    assert "more than the limit of 0.001 MB by 499,999,001 bytes" in text
    text = sentence(500_000_000, 500_000_001, 125_000_000, "safetensors", "fp32")
    assert "by 1 byte: choose --precision fp16 (about 250 MB" in text
    require_within(161_000_000, 161_000_000, 40_000_000, format="onnx", precision="fp32")


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_limit_is_a_size(limit):
    with pytest.raises(UserError, match="--limit_mb must be finite and above 0"):
        limit_in_bytes(limit)
    assert limit_in_bytes(0.5) == 500_000


def test_the_file_that_is_opened_comes_last():
    for format, opened in (("safetensors", ".safetensors"), ("onnx", ".onnx"), ("openvino", ".xml")):
        assert files_of(Path(), format)[-1].suffix == opened

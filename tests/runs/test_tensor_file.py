"""Headers of safetensors files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from glu_bench.errors import DataError
from glu_bench.runs.tensor_file import MAX_HEADER_BYTES, check_header


def test_a_file_of_the_library_passes(tmp_path: Path) -> None:
    save_file({"a": np.ones(3), "b/c": np.zeros((2, 2))}, tmp_path / "t.safetensors")
    check_header(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a safetensors file"),
        (b"1234567", "not a safetensors file"),
        (struct.pack("<Q", 2**62) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", 3) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", 4) + b"nope", "not a safetensors file"),
        (struct.pack("<Q", 9000) + b"[" * 9000, "not a safetensors file"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + bytes(MAX_HEADER_BYTES + 1), "a header of"),
        (struct.pack("<Q", 17) + b'{"a":{},"a":{}}  ', "'a' stands there twice"),
    ],
    ids=["empty", "short", "huge", "torn", "words", "deep", "long", "twice"],
)
def test_what_is_none_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(DataError, match=said):
        check_header(tmp_path / "t")


def test_a_key_of_the_header_twice_is_refused_at_any_depth(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32"}}).replace('"dtype"', '"dtype":"F64","dtype"').encode()
    (tmp_path / "t").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(DataError, match="dtype"):
        check_header(tmp_path / "t")

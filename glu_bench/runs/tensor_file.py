"""A safetensors file's header, looked at before a library takes the file in; it may be anybody's.

The library refuses offsets and shapes that do not fit the file. It reads headers of 100 MB,
which takes a gigabyte, and lets the last of two tensors of one name win.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from glu_bench.errors import DataError

# a name, dtype, shape and offsets take some 120 bytes: 30,000 tensors, and the largest models have 5,000
MAX_HEADER_BYTES = 2**22


def check_header(path: Path) -> None:
    """Refuse a file whose header is too long, torn, no JSON, or names a tensor twice.

    Raises: DataError.
    """
    try:
        with path.open("rb") as file:
            n_bytes = path.stat().st_size
            start = file.read(8)
            n_header = struct.unpack("<Q", start)[0] if len(start) == 8 else None
            if n_header is None or n_header > n_bytes - 8:
                raise DataError(f"{path}: not a safetensors file, or torn")
            if n_header > MAX_HEADER_BYTES:
                raise DataError(
                    f"{path}: a header of {n_header:,} bytes, at most {MAX_HEADER_BYTES:,} are read"
                )
            header = file.read(n_header)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        json.loads(header, object_pairs_hook=_refuse_twice)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a safetensors file ({error})") from None


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands there twice")
    return found

"""Bytes an element takes, by torch's name of the dtype or its usual short form; an unknown name is an error."""

from __future__ import annotations

from ..errors import UsageError

_BYTES: dict[str, float] = {
    "float64": 8,
    "float32": 4,
    "tf32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8": 1,
    "int8": 1,
    "int4": 0.5,
    "float4": 0.5,
}
_SHORT = {
    "fp64": "float64",
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp8": "float8",
    "float8_e4m3fn": "float8",
    "float8_e5m2": "float8",
    "fp4": "float4",
    "double": "float64",
    "float": "float32",
    "half": "float16",
}


def dtype_name(dtype: str) -> str:
    """ "bf16" or "torch.bfloat16" to "bfloat16"."""
    short = str(dtype).removeprefix("torch.").lower()
    name = _SHORT.get(short, short)
    if name not in _BYTES:
        raise UsageError(f"unknown dtype {dtype!r}; type one of {', '.join(_BYTES)}")
    return name


def itemsize(dtype: str) -> float:
    """Bytes an element; one half for the 4-bit formats, without their scales."""
    return _BYTES[dtype_name(dtype)]

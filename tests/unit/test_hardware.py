"""Devices by name. Witness: what the makers print, and the mistakes other tools made with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlsys_studio.profilers import hardware
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.hardware import Device, detect, lookup, peak

ROWS = json.loads((Path(hardware.__file__).parent / "data" / "devices.json").read_text())["devices"]


@pytest.mark.parametrize(
    ("printed", "name"),
    [  # as torch.cuda.get_device_name prints them
        ("Tesla V100-SXM2-32GB", "V100-SXM2-32GB"),
        ("Tesla V100-SXM2-16GB", "V100-SXM2-16GB"),
        ("Tesla V100-PCIE-32GB", "V100-PCIe-32GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A100-PCIE-40GB", "A100-PCIe-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM5"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA H200", "H200-SXM"),
        ("NVIDIA GH200 480GB", "GH200-96GB"),
        ("NVIDIA GH200 144G HBM3e", "GH200-144GB"),
        ("NVIDIA B200", "B200-SXM"),
        ("NVIDIA GB200", "GB200"),
        ("AMD Instinct MI250X", "MI250X-GCD"),
        ("AMD Instinct MI300X", "MI300X"),
        ("TPU v5 lite", "TPU-v5e"),
        ("rtx 4090", "RTX-4090"),
        ("a100-sxm4-80gb", "A100-SXM4-80GB"),
    ],
)
def test_a_printed_name_finds_its_own_device(printed: str, name: str):
    assert lookup(printed).name == name


@pytest.mark.parametrize(
    "printed",
    [
        "NVIDIA H20",  # no H200
        "NVIDIA H800",
        "NVIDIA L40",  # no L40S
        "NVIDIA A800-SXM4-80GB",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA H200 NVL",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "AMD Radeon Graphics",
        "H100",  # three devices, three peaks
        "A100",
        "",
        "Graphics Device",
    ],
)
def test_an_unknown_name_is_refused_and_says_how_to_give_a_peak(printed: str):
    with pytest.raises(UsageError, match="MLSYS_PEAK="):
        lookup(printed)


def test_a_refusal_names_what_is_near():
    with pytest.raises(UsageError, match="H200-SXM"):
        lookup("NVIDIA H20")
    with pytest.raises(UsageError, match=r"H100-NVL, H100-PCIe, H100-SXM5"):
        lookup("H100")
    with pytest.raises(UsageError, match="MIG"):
        lookup("NVIDIA A100-SXM4-40GB MIG 1g.5gb")


def test_no_two_devices_share_a_name():
    words = [hardware._words(name) for row in ROWS for name in {row["name"], *row["match"]}]
    by_row = [{hardware._words(n) for n in (row["name"], *row["match"])} for row in ROWS]
    assert len(set().union(*by_row)) == sum(map(len, by_row)) <= len(words)


SPARSE = {  # TFLOP/s with sparsity, as the datasheets print them: exactly twice what a dense matmul can reach
    ("A100-SXM4-80GB", "bfloat16"): 624,
    ("A100-SXM4-80GB", "tf32"): 312,
    ("H100-SXM5", "bfloat16"): 1979,
    ("H100-SXM5", "float8"): 3958,
    ("H100-NVL", "bfloat16"): 1671,
    ("H200-SXM", "float16"): 1979,
    ("L4", "float16"): 242,
    ("L4", "float8"): 485,
    ("L40S", "bfloat16"): 724,
    ("B200-SXM", "bfloat16"): 4500,
    ("MI300X", "float16"): 2614.9,
}


@pytest.mark.parametrize(("device", "dtype"), SPARSE)
def test_peaks_are_dense(device: str, dtype: str):
    assert peak(lookup(device), dtype) == pytest.approx(SPARSE[device, dtype] / 2 * 1e12, rel=0.002)


@pytest.mark.parametrize(
    ("device", "dtype", "tera"),
    [
        ("RTX-4090", "float16", 165.2),  # fp32 accumulate, as torch does; 330.3 is fp16 accumulate
        ("RTX-3090", "float16", 71),
        ("H200-SXM", "bfloat16", 989.4),
        ("MI250X-GCD", "bfloat16", 191.5),  # the module has two
        ("A10", "float16", 125),
        ("A10G", "float16", 70),
        ("A100-SXM4-80GB", "torch.bfloat16", 312),
        ("H100-SXM5", "float8_e4m3fn", 1979),
        ("H100-SXM5", "float8_e5m2", 1979),
    ],
)
def test_peaks_known_from_elsewhere(device: str, dtype: str, tera: float):
    assert peak(lookup(device), dtype) == pytest.approx(tera * 1e12)


def test_float32_is_the_vector_peak_until_tf32_is_allowed():
    a100 = lookup("A100-SXM4-80GB")
    assert peak(a100, "float32") == pytest.approx(19.5e12)
    assert peak(a100, "float32", tf32=True) == pytest.approx(156e12)
    assert peak(lookup("T4"), "float32", tf32=True) == pytest.approx(8.1e12)  # no such units: nothing to allow


@pytest.mark.parametrize(
    ("device", "dtype"), [("V100-SXM2-32GB", "bfloat16"), ("A100-SXM4-80GB", "float8"), ("T4", "bfloat16")]
)
def test_a_dtype_without_units_is_refused(device: str, dtype: str):
    with pytest.raises(UsageError, match=f"{device} has no {dtype} peak"):
        peak(lookup(device), dtype)


def test_every_peak_has_its_source_and_a_plausible_size():
    for row in ROWS:
        device = lookup(row["name"])
        assert device.peak_source.startswith("spec, dense: ") and device.confidence in {"high", "medium", "low"}
        assert all(1e12 < rate < 1e16 for rate in device.peak_flops.values())
        assert 1e10 < device.memory < 1e12 and device.bandwidth and 1e11 < device.bandwidth < 1e13


def test_this_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLSYS_PEAK", raising=False)
    device = detect("cpu")
    assert device.kind == "cpu" and device.peak_flops == {} and device.memory > 1e8
    assert device.name.endswith(f"{hardware.cores()} cores")
    with pytest.raises(UsageError, match="no known peak"):
        peak(device, "float32")


def test_a_peak_by_hand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLSYS_PEAK", "bfloat16=2e12, float32=1e12")
    assert detect("cpu").peak_flops == {"bfloat16": 2e12, "float32": 1e12}
    monkeypatch.setenv("MLSYS_PEAK", "fast")
    with pytest.raises(UsageError, match="cannot read MLSYS_PEAK"):
        detect("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """A CUDA device that torch reports and that is not there."""
    import types

    import torch

    monkeypatch.delenv("MLSYS_PEAK", raising=False)
    properties = types.SimpleNamespace(name="", total_memory=79 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    return properties


def test_a_known_gpu_has_its_spec_and_its_real_memory(gpu):
    gpu.name = "NVIDIA H100 80GB HBM3"
    device = detect()
    assert (device.kind, device.memory, device.bandwidth) == ("cuda", 79 << 30, 3.35e12)
    assert peak(device, "bfloat16") == pytest.approx(989.4e12)


def test_an_unknown_gpu_is_a_device_without_a_peak_and_says_so(gpu, monkeypatch: pytest.MonkeyPatch):
    gpu.name = "NVIDIA H20"
    device = detect()
    assert isinstance(device, Device) and device.peak_flops == {} and "H200-SXM" in device.notes[0]
    monkeypatch.setenv("MLSYS_PEAK", "bfloat16=148e12")
    assert detect().peak_flops == {"bfloat16": 148e12}


def test_no_gpu_where_one_was_asked_for(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device"):
        detect("cuda")

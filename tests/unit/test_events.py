"""What is kept of the profiler's events, on stand-ins for those only a GPU or a process group makes."""

from __future__ import annotations

import pytest
import torch

from mlsys_studio.profilers.events import device_kind, from_kineto


class Event:
    """Answers what a Kineto event is asked."""

    def __init__(self, name, start, length, device="DeviceType.CPU", annotation=False, is_async=False, **known):
        self._known = {"name": name, "start_ns": start, "duration_ns": length, "device_type": device,
                       "is_user_annotation": annotation, "is_async": is_async} | known  # fmt: skip

    def __getattr__(self, asked):
        return lambda: self._known.get(asked, 0)


def test_operators_runtime_calls_and_device_work_are_told_apart():
    seen = from_kineto(
        [
            Event("aten::mm", 0, 10, correlation_id=5, start_thread_id=1),
            Event("cudaLaunchKernel", 2, 3, correlation_id=77, start_thread_id=1),
            Event("custom::op", 20, 3, correlation_id=6, start_thread_id=1),
            Event(
                "gemm_128", 15, 30, "DeviceType.CUDA", linked_correlation_id=5, correlation_id=77, device_resource_id=7
            ),
        ],
        shapes=False,
    )
    assert [(h.name, h.runtime) for h in seen.host] == [
        ("aten::mm", False),
        ("cudaLaunchKernel", True),
        ("custom::op", False),
    ]
    (kernel,) = seen.device
    assert (kernel.operator, kernel.correlation, kernel.stream, kernel.kind) == (5, 77, 7, "compute")


@pytest.mark.parametrize("name", ["Optimizer.step#AdamW.step", "ProfilerStep#3", "enumerate(DataLoader)#X.__next__"])
@pytest.mark.parametrize("device", ["DeviceType.CPU", "DeviceType.CUDA"])
def test_ranges_are_neither_operators_nor_kernels(name, device):
    seen = from_kineto([Event(name, 0, 10, device)], shapes=False)
    assert not seen.host and not seen.device


def test_a_streams_wait_is_not_work():
    assert not from_kineto([Event("Stream Wait Event", 0, 10, "DeviceType.CUDA")], shapes=False).device


def test_an_asynchronous_collective_is_a_span_and_no_operator():
    seen = from_kineto(
        [Event("gloo:all_reduce", 5, 10, annotation=True, is_async=True), Event("else", 5, 1, is_async=True)],
        shapes=False,
    )
    assert seen.collectives == [(5, 15)] and not seen.host


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Memcpy HtoD (Pageable -> Device)", "copy"), ("Memset (Device)", "copy"), ("gemm", "compute"),
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", "comm"), ("ncclKernel_SendRecv", "comm"),
    ],
)  # fmt: skip
def test_kinds_by_name(name, kind):
    assert device_kind(name) == kind


def test_the_real_profilers_events_have_what_we_ask_them():
    with torch.autograd.profiler.profile(use_kineto=True, record_shapes=True) as profiler:
        (torch.ones(3, 4) @ torch.ones(4, 5)).sum()
    seen = from_kineto(profiler.kineto_results.events(), shapes=True)
    mm = next(h for h in seen.host if h.name == "aten::mm")
    assert mm.call is not None and mm.call.shapes[:2] == ((3, 4), (4, 5)) and mm.end > mm.start

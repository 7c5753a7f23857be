"""Captures written by hand, in microseconds: what a GPU and its host did, with the ledger known in advance."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlsys_studio.profilers.capture import Capture
from mlsys_studio.profilers.ceilings import Ceilings
from mlsys_studio.profilers.cost import Call
from mlsys_studio.profilers.events import DeviceEvent, HostEvent, device_kind
from mlsys_studio.profilers.hardware import Device, Kind
from mlsys_studio.profilers.phases import Mark

US = 1000

# 1 TFLOP/s in float32, of which 0.8 are reached; bfloat16 promises 2; 1 TB/s; a kernel takes 2 us at least
CEILINGS = Ceilings(
    matmul={"float32": 0.8e12},
    copy=((1, 1e12), (1 << 40, 1e12)),
    dispatch_ns=2000.0,
    event_ns=0.0,
    event_shaped_ns=0.0,
    measured_at="",
    torch="",
    threads=1,
)
CPU = Device("Tape", "cpu", 1 << 34, ceilings=CEILINGS)
GPU = Device("Tape", "cuda", 1 << 34, {"float32": 1e12}, "by hand", 1e12, "high", CEILINGS)


def mm(m: int, k: int, n: int) -> Call:
    return Call("aten::mm", ((m, k), (k, n)), ("float32", "float32"), (None, None))


@dataclass
class Tape:
    """Times in us. Every `op` launches one kernel unless told otherwise."""

    length: int = 1000
    host: list[HostEvent] = field(default_factory=list)
    device: list[DeviceEvent] = field(default_factory=list)
    marks: list[tuple[int, str]] = field(default_factory=lambda: [(0, "other")])
    edges: tuple[int, ...] = ()
    spans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    off_cpu: list[tuple[int, int]] = field(default_factory=list)  # when the loop's thread was off the CPU
    clean_wall: int = 0
    clean_phases: dict[str, int] = field(default_factory=dict)
    ids: int = 0

    def op(self, name: str, at: int, to: int, call: Call | None = None, thread: int = 1, sequence: int = -1) -> int:
        self.ids += 1
        self.host.append(HostEvent(name, at * US, to * US, thread, sequence, self.ids, False, call))
        return self.ids

    def runtime(self, name: str, at: int, to: int, thread: int = 1, correlation: int = 0) -> None:
        self.host.append(HostEvent(name, at * US, to * US, thread, -1, correlation, True))

    def kernel(
        self,
        at: int,
        to: int,
        launched: int,
        name: str = "gemm",
        call: Call | None = None,
        stream: int = 7,
        thread: int = 1,
    ) -> None:
        """An operator [launched, launched+4) whose runtime call [launched+1, launched+3) put a kernel on the stream."""
        owner = self.op("aten::mm" if call else "aten::add", launched, launched + 4, call, thread)
        self.runtime("cudaLaunchKernel", launched + 1, launched + 3, thread, correlation=1000 + owner)
        self.device.append(DeviceEvent(name, at * US, to * US, stream, device_kind(name), owner, 1000 + owner))

    def cpu_clock(self, t: int) -> int:
        return t - sum(max(0, min(b, t) - a) for a, b in self.off_cpu)

    def capture(self, start: int = 0, end: int | None = None, device: Kind = "cuda") -> Capture:
        end = self.length if end is None else end
        return Capture(
            device=device,
            start=start * US,
            end=end * US,
            edges=tuple(e * US for e in self.edges) or (end * US,),
            thread=1,
            host=tuple(sorted(self.host, key=lambda h: (h.start, -h.end))),
            on_device=tuple(sorted(self.device, key=lambda d: d.start)),
            marks=tuple(Mark(t * US, self.cpu_clock(t) * US, phase) for t, phase in [*self.marks, (end, "other")]),
            spans={
                c: tuple((a * US, b * US) for a, b in self.spans.get(c, ()))
                for c in ("gc", "compile", "comm", "create_graph")
            },
            clean_wall=self.clean_wall * US,
            clean_phases={p: ns * US for p, ns in self.clean_phases.items()},
            optimizer_bytes=0,
        )

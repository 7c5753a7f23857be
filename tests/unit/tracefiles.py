"""Small traces of our own making: one story in the words of several writers.

The story, in us from its beginning: a step of 100; the loader works 0-30; the host launches a kernel at 40-42 that runs
45-65, and a copy at 66-67 that runs 68-70 on another stream; a collective, launched at 46-47, runs 60-80.
"""

from __future__ import annotations

import json

ORIGIN = 1_724_411_645_095_118  # us since 1970: 51 bits before the point
BUSY, IDLE = 35, 0  # us: [45, 80) has no gap

Event = dict[str, object]


def x(cat: str, name: str, pid: object, tid: object, ts: object, dur: object, **args: object) -> Event:
    return {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}


def story(origin: int = ORIGIN, scale: float = 1, device: str = "kernel", copy: str = "gpu_memcpy", op: str = "cpu_op",
          runtime: str = "cuda_runtime", annotation: str = "user_annotation", stream: str = "{}", thread: object = 7) -> list[Event]:  # fmt: skip
    """`scale`: units of the file in a microsecond."""

    def at(us: float) -> float:
        return (origin + us) * scale if scale != 1 else origin + us

    def lane(number: int) -> object:
        return stream.format(number) if stream != "{}" else number

    return [
        x(annotation, "ProfilerStep#3", 7, thread, at(0), 100 * scale),
        x(annotation, "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", 7, thread, at(0), 30 * scale),
        x(op, "aten::mm", 7, thread, at(38), 5 * scale, **{"External id": 11}),
        x(runtime, "cudaLaunchKernel", 7, thread, at(40), 2 * scale, **{"External id": 11, "correlation": 501}),
        x(runtime, "cudaLaunchKernel", 7, thread, at(46), 1 * scale, correlation=502),
        x(runtime, "cudaMemcpyAsync", 7, thread, at(66), 1 * scale, correlation=503),
        x(device, "sgemm_128x128", 0, lane(7), at(45), 20 * scale, **{"External id": 11, "correlation": 501}),
        x(device, "ncclDevKernel_AllReduce_Sum_f32", 0, lane(20), at(60), 20 * scale, correlation=502),
        x(copy, "Memcpy HtoD (Pinned -> Device)", 0, lane(21), at(68), 2 * scale, correlation=503),
        {"ph": "M", "name": "process_name", "pid": 7, "tid": 0, "args": {"name": "python"}},
        {"ph": "s", "id": 501, "pid": 7, "tid": thread, "ts": at(40), "cat": "ac2g", "name": "ac2g"},
    ]


def document(events: list[Event], **header: object) -> bytes:
    return json.dumps({"schemaVersion": 1, **header, "traceEvents": events, "traceName": "t.json"}, indent=1).encode()


DIALECTS: dict[str, bytes] = {
    "today": document(story(), distributedInfo={"backend": "nccl", "rank": 3, "world_size": 8}),
    "2021": document(story(device="Kernel", copy="Memcpy", op="Operator", runtime="Runtime", annotation="Operator",
                           stream="stream {}", thread="1890023232")),
    "a list": json.dumps(story()).encode(),
    "a list without end": json.dumps(story())[:-1].encode(),
    "nanoseconds": document(story(scale=1000)),
    "events first": json.dumps({"traceEvents": story(), "distributedInfo": {"rank": 3}}).encode(),
    "null information": document(story(), distributedInfo=None, deviceProperties=None),
    "null rank": document(story(), distributedInfo={"rank": None, "backend": None}),
    "with a mark": b"\xef\xbb\xbf" + document(story()),
    "trailing comma": document(story()).replace(b'"ac2g"\n  }\n ]', b'"ac2g"\n  },\n ]'),
    "HIP": document(story(runtime="hip_runtime")),
    "driver": document(story(runtime="cuda_driver")),
}  # fmt: skip

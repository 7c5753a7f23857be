"""Failures of hardware that is not here, composed from the makers' own words. Marked `composed` and counted apart.

Xid numbers, mnemonics and meanings are those of NVIDIA's Xid catalogue
(docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html); the line format is the driver's `NVRM: Xid (PCI:bus):
number, pid=…, name=…, text`. What the program says is the CUDA runtime's string for the error that follows from it
(cudaGetErrorString), or torch's message for memory that is used up (c10/cuda/CUDACachingAllocator.cpp).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from variations import elastic_summary, steady_training, vary

ECC = "CUDA error: uncorrectable ECC error encountered"
GONE = "CUDA error: unspecified launch failure"
ACCELERATOR = (
    "Traceback (most recent call last):\n"
    '  File "$HOME/train.py", line 211, in <module>\n    main()\n'
    '  File "$HOME/train.py", line 188, in main\n    loss.backward()\n'
    "torch.AcceleratorError: {error}\n"
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.\n"
)
OUT_OF_MEMORY = (
    "Traceback (most recent call last):\n"
    '  File "$HOME/train.py", line 97, in <module>\n    {where}\n'
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {tried} GiB. GPU {gpu} has a total capacity of 79.15 GiB of which {free} MiB is free. "
    "{other}Including non-PyTorch memory, this process has {used} GiB memory in use. Of the allocated memory {allocated} GiB is allocated by PyTorch, "
    "and {reserved} is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation.\n"
)


@dataclass(frozen=True, slots=True)
class Composed:
    category: str
    cause: str
    name: str
    lines: str  # $pci, $gpu, $pid are drawn
    because: str
    confidence: str = "high"


def xid(number: int, text: str) -> str:
    return f"[$uptime] NVRM: Xid (PCI:0000:$pci:00): {number}, {text}\n"


def hardware(cause: str, name: str, lines: str, because: str, confidence: str = "high") -> Composed:
    return Composed("gpu_hardware", cause, name, lines, because, confidence)


WHO = "pid=$pid, name=python3"
ROWS: tuple[Composed, ...] = (
    hardware("gpu_ecc_uncorrectable", "xid_48", xid(48, f"{WHO}, An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer at partition 5, subpartition 0.") + xid(45, f"{WHO}, Ch 00000008") + ACCELERATOR.format(error=ECC), "Xid 48 is a double-bit ECC error; 45 is the cleaning up after it"),
    hardware("gpu_ecc_uncorrectable", "xid_94", xid(94, f"{WHO}, Contained: FB (0x5,0x1). RST: No, D-RST: No") + ACCELERATOR.format(error=ECC), "Xid 94 is a contained uncorrectable ECC error: only this program is hit"),
    hardware("gpu_ecc_uncorrectable", "xid_95", xid(95, f"{WHO}, Uncontained: LTC TAG (0x1,0x3). RST: Yes, D-RST: No") + ACCELERATOR.format(error=ECC), "Xid 95 is an uncontained uncorrectable ECC error"),
    hardware("gpu_ecc_uncorrectable", "xid_64", xid(48, f"{WHO}, An uncorrectable double bit error (DBE) has been detected on GPU") + xid(64, f"{WHO}, Row Remapper Error: All reserved rows for bank are remapped"), "Xid 64: a row with an uncorrectable error could not be remapped"),
    hardware("gpu_ecc_uncorrectable", "program_only", ACCELERATOR.format(error=ECC), "the CUDA runtime's own text for an uncorrectable ECC error"),
    hardware("gpu_fallen_off_bus", "xid_79", xid(79, f"{WHO}, GPU has fallen off the bus.") + "[$uptime] NVRM: GPU 0000:$pci:00.0: GPU has fallen off the bus.\n" + ACCELERATOR.format(error=GONE), "Xid 79"),
    hardware("gpu_fallen_off_bus", "smi", "[$uptime] pcieport 0000:$pci:00.0: AER: Uncorrected (Fatal) error received\n" + xid(79, f"{WHO}, GPU has fallen off the bus."), "Xid 79 after a fatal PCIe error"),
    hardware("gpu_handle_lost", "nvml", "Unable to determine the device handle for GPU$gpu: 0000:$pci:00.0: Unknown Error\n", "nvidia-smi cannot open one of the GPUs"),
    hardware("gpu_lost_unknown_error", "nvml", "Unable to determine the device handle for GPU 0000:$pci:00.0: GPU is lost.  Reboot the system to recover this GPU\n", "NVML's text for a lost GPU"),
    hardware("gsp_firmware_fault", "xid_119", xid(119, "pid=$pid, name=nv-hostengine, Timeout after 6s of waiting for RPC response from GPU$gpu GSP! Expected function 76 (GSP_RM_CONTROL) (0x20802a02 0x8).") + ACCELERATOR.format(error=GONE), "Xid 119: the GPU's system processor does not answer"),
    hardware("gsp_firmware_fault", "xid_120", xid(120, f"{WHO}, GSP task exception: instruction access fault (0x1) @ pc:0x1c1a4, partition:4#0, task:3"), "Xid 120: the GSP firmware crashed"),
    hardware("nvlink_error", "xid_74", xid(74, f"{WHO}, NVLink: fatal error detected on link 4(0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)") + ACCELERATOR.format(error="CUDA error: uncorrectable NVLink error detected during the execution"), "Xid 74"),
    hardware("nvlink_error", "sxid", "[$uptime] nvidia-nvswitch2: SXid (PCI:0000:$pci:00.0): 20034, Fatal, Link 28 LTSSM Fault Up\n" + xid(45, f"{WHO}, Ch 00000010"), "a fatal NVSwitch link fault, then the cleaning up"),
    hardware("nvlink_error", "xid_149", xid(149, "NETIR_LINK_EVT Fatal XC0 i0 Link 00 (0x026001c6 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000)") + xid(45, f"{WHO}, Ch 00000001 caused by previous Xid 149"), "Xid 149: a fatal NVLink network error"),
    hardware("thermal_throttle", "smi", "WARNING throughput fell from 9412 to 3187 tokens/s on rank $gpu\n==============NVSMI LOG==============\nGPU 00000000:$pci:00.0\n    Clocks Event Reasons\n        SW Power Cap                      : Not Active\n        HW Slowdown                       : Active\n            HW Thermal Slowdown           : Active\n            HW Power Brake Slowdown       : Not Active\n    Temperature\n        GPU Current Temp                  : 91 C\n        GPU Slowdown Temp                 : 89 C\n", "the hardware slows down because it is too hot"),
    hardware("power_fault", "brake", "WARNING throughput fell from 9412 to 2210 tokens/s on rank $gpu\nGPU 00000000:$pci:00.0\n    Clocks Event Reasons\n        HW Slowdown                       : Active\n            HW Thermal Slowdown           : Not Active\n            HW Power Brake Slowdown       : Active\n[$uptime] NVRM: GPU 0000:$pci:00.0: GPU power cable or external power brake asserted\n", "the external power brake holds the clocks down", "medium"),
    hardware("power_fault", "xid_54", xid(54, f"{WHO}, Auxiliary power is not connected to the GPU board"), "Xid 54: auxiliary power is not connected"),
    hardware("faulty_node_rescheduled", "drain", "node-31: health check failed: DCGM diagnostic level 2: Memory: Fail on GPU $gpu\nnode-31: cordoned and drained (gpu unhealthy); job restarted on node-44 from step 12000\n", "the scheduler takes a node with a failing GPU out", "medium"),
    hardware("silent_data_corruption", "dcgm", "checksum of replicated weights differs: rank $gpu 0x8f31aa02, all other ranks 0x8f31aa42\nreplaying step 4411 on rank $gpu three times: three different losses (2.3117, 2.3120, 2.2981); other ranks bit-identical\ndcgmi diag: GPU $gpu: Targeted Stress: Fail: SDC detected\n", "one GPU computes other numbers from the same input"),
    Composed("gpu_kernel_compile", "illegal_memory_access", "xid_31", xid(31, f"{WHO}, Ch 0000003b, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_3 faulted @ 0x7f3a_04687000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ") + ACCELERATOR.format(error="CUDA error: an illegal memory access was encountered"), "Xid 31 is a fault of the program's own access"),
    Composed("gpu_kernel_compile", "illegal_memory_access", "program_only", ACCELERATOR.format(error="CUDA error: an illegal memory access was encountered"), "the CUDA runtime's text"),
    Composed("gpu_kernel_compile", "kernel_launch_failure", "invalid", ACCELERATOR.format(error="CUDA error: invalid configuration argument"), "the launch asks for an impossible grid"),
    Composed("gpu_kernel_compile", "device_side_assert_unknown", "assert", ACCELERATOR.format(error="CUDA error: device-side assert triggered"), "a device-side assertion of which nothing else is known"),
    Composed("gpu_oom", "vram_exhausted", "backward", OUT_OF_MEMORY.format(where="loss.backward()", tried="2.50", gpu="$gpu", free="812.19", other="", used="78.34", allocated="76.90", reserved="411.27 MiB"), "torch's text for used up memory", "medium"),
    Composed("gpu_oom", "fragmentation", "reserved", OUT_OF_MEMORY.format(where="out = block(x)", tried="1.50", gpu="$gpu", free="612.50", other="", used="78.50", allocated="52.12", reserved="25.80 GiB"), "a third of the memory is reserved and not allocated"),
    Composed("gpu_oom", "vram_held_by_other_process", "other", OUT_OF_MEMORY.format(where='model.to("cuda")', tried="0.50", gpu="$gpu", free="91.00", other="Process 41172 has 71.22 GiB memory in use. ", used="7.80", allocated="7.10", reserved="120.00 MiB"), "another process has nearly all of the memory"),
)  # fmt: skip


def composed_records(seed: int, count: int = 5) -> Iterator[dict]:
    """`count` variations of each row."""
    for row in ROWS:
        for number in range(count):
            lot = random.Random(f"{row.category}/{row.cause}/{row.name}/{seed}/{number}")
            text = row.lines
            drawn = {
                "$pci": f"{lot.randrange(16, 240):02x}",
                "$gpu": str(lot.randrange(8)),
                "$pid": str(lot.randint(900, 99999)),
                "$uptime": f"{lot.uniform(900, 9e5):.6f}",
            }
            for name, value in drawn.items():
                text = text.replace(name, value)
            if number:
                text = steady_training(text, lot)
            if number % 2 and "Traceback" in text:
                text = elastic_summary(1)(text, lot)
            varied = vary(text, 0, lot, plain=number < 3)
            if "Xid" in row.lines and "Xid" not in varied.text:
                continue  # a variation that cuts the kernel's line leaves nothing to know
            yield {
                "id": f"{row.category}/{row.cause}/{row.name}/{10 * seed + number}",
                "source": "tests/faults:composed",
                "text": varied.text,
                "category": row.category,
                "cause": row.cause,
                "root_cause": row.because,
                "fix": "",
                "label_confidence": row.confidence,
                "hard": "consequence" if number % 2 and "Traceback" in row.lines else None,
                "decoy_category": None,
                "elided": False,
                "obtained_via": "composed",
                "seed": 10 * seed + number,
                "rank": None,
                "ranks": 1,
                "files": {},
                "exit": None,
                "variations": list(varied.applied),
                "undecidable": False,
                "composed": True,
            }

"""What each FLOP counter says of the same models, and what counting 405 billion parameters takes.

    python tests/benchmarks/flop_counters.py          # the others: pip install -e '.[peers]'

A cell is "exact" where the integer equals the truth, else how far off it is. Truth: multiply-adds of matrix products,
convolutions and attention times 2, by closed form below. Counters of multiply-adds are doubled. Exits 1 if ours is not
exact, or the large model misses its targets.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from heading import heading
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mlsys_studio import flops

PEERS = ("fvcore", "ptflops", "thop", "calflops", "torchinfo")
SECONDS_FORWARD, SECONDS_BOTH, GIGABYTES = 3.0, 8.0, 1.0


# -- models and their truth --------------------------------------------------------------------------------------------


class FirstResult(nn.Module):
    """A tensor instead of a dict: several counters cannot take one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, return_dict=False)[0]


class Block(nn.Module):
    """As torchvision's: nn.MultiheadAttention, which in evaluation may run as one fused operator."""

    def __init__(self, h: int, heads: int, f: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(h), nn.LayerNorm(h)])
        self.attention = nn.MultiheadAttention(h, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(h, f), nn.GELU(), nn.Linear(f, h))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norms[1](x))


class ViT(nn.Module):
    """ViT-B/16 (Dosovitskiy et al. 2020, arXiv:2010.11929), 224 x 224, 1000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 768, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, 768))
        self.place = nn.Parameter(torch.zeros(1, 197, 768))
        self.blocks = nn.Sequential(*(Block(768, 12, 3072) for _ in range(12)), nn.LayerNorm(768))
        self.head = nn.Linear(768, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.blocks(x)[:, 0])


def transformer(layers: int, s: int, h: int, f: int, kv: int, matrices: int, head: int) -> int:
    """FLOPs of one sequence: projections (kv wide for keys and values), all pairs, an MLP, `head` more multiply-adds."""
    layer = 2 * s * h * h + 2 * s * h * kv + 2 * s * s * h + matrices * s * h * f
    return 2 * (layers * layer + head)


def resnet50() -> int:
    """He et al. 2015, arXiv:1512.03385, table 1; the stride is in the 3 x 3 convolution."""
    total, i, size = 112 * 112 * 64 * 3 * 49 + 2048 * 1000, 64, 56
    for blocks, width, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
        for block in range(blocks):
            before, size = size, size // stride if block == 0 else size
            total += before**2 * i * width + size**2 * (9 * width * width + width * 4 * width)
            total += size**2 * i * 4 * width if block == 0 else 0
            i = 4 * width
    return 2 * total


def mixture(layers: int, s: int, h: int, f: int, kv: int, experts: int, active: int, vocab: int) -> int:
    """As `transformer`, with a router and gated experts, `active` of them for a token."""
    layer = 2 * s * h * h + 2 * s * h * kv + 2 * s * s * h + s * h * experts + active * 3 * s * h * f
    return 2 * (layers * layer + s * h * vocab)


def latent(layers: int, s: int, h: int, f: int, vocab: int) -> int:
    """Latent attention (DeepSeek-V2, arXiv:2405.04434, 2.1.2) by the sizes of LATENT, and a gated MLP."""
    a, q, kv, rope, nope, v = (LATENT[name] for name in ("num_attention_heads", "q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))  # fmt: skip
    projections = h * q + h * (kv + rope) + q * a * (nope + rope) + kv * a * (nope + v) + a * v * h
    layer = s * projections + a * s * s * (nope + rope + v) + 3 * s * h * f
    return 2 * (layers * layer + s * h * vocab)


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    forward: int  # the truth
    not_wanted: int = 0  # of the backward, such as the gradient of the image

    @property
    def both(self) -> int:
        return 3 * self.forward - self.not_wanted


def hugging_face(name: str, **sizes: Any) -> nn.Module:
    import transformers

    kind = getattr(transformers, name)
    model = kind(kind.config_class(**sizes))
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("grouped_mm")  # the others' shapes depend on where tokens go
    return FirstResult(model)


def image() -> Tensor:
    return torch.zeros(1, 3, 224, 224)


def tokens() -> Tensor:
    return torch.ones(1, 128, dtype=torch.long)


LLAMA = dict(hidden_size=512, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, intermediate_size=1376)
MOE = dict(num_local_experts=8, num_experts_per_tok=2)
LATENT = dict(num_attention_heads=8, num_key_value_heads=8, q_lora_rank=192, kv_lora_rank=128, qk_rope_head_dim=32, qk_nope_head_dim=64, v_head_dim=64)  # fmt: skip
MODELS = (
    Model(
        "ResNet-50",
        lambda: hugging_face("ResNetForImageClassification", num_labels=1000),
        image,
        resnet50(),
        2 * 112 * 112 * 64 * 3 * 49,
    ),
    Model(
        "ViT-B/16",
        ViT,
        image,
        transformer(12, 197, 768, 3072, 768, 2, 196 * 768 * 768 + 768 * 1000),
        2 * 196 * 768 * 768,
    ),
    Model(
        "BERT-base",
        lambda: hugging_face("BertModel"),
        tokens,
        transformer(12, 128, 768, 3072, 768, 2, 768 * 768),
        2 * 2 * 768 * 768,  # the pooler runs, but has no part in the first result
    ),
    Model(
        "GPT-2",
        lambda: hugging_face("GPT2LMHeadModel", use_cache=False),
        tokens,
        transformer(12, 128, 768, 3072, 768, 2, 128 * 768 * 50257),
    ),
    Model(
        "Llama GQA",
        lambda: hugging_face("LlamaForCausalLM", use_cache=False, vocab_size=32000, **LLAMA),
        tokens,
        transformer(4, 128, 512, 1376, 128, 3, 128 * 512 * 32000),
    ),
    Model(
        "Mixtral MoE",
        lambda: hugging_face("MixtralForCausalLM", use_cache=False, vocab_size=32000, **MOE, **LLAMA),
        tokens,
        mixture(4, 128, 512, 1376, 128, 8, 2, 32000),
    ),
    Model(
        "MLA",
        lambda: hugging_face(
            "DeepseekV3ForCausalLM",
            use_cache=False,
            vocab_size=32000,
            hidden_size=512,
            num_hidden_layers=2,
            first_k_dense_replace=2,
            intermediate_size=1376,
            **LATENT,
        ),
        tokens,
        latent(2, 128, 512, 1376, 32000),
    ),
)


# -- counters: each the FLOPs of model(x) --------------------------------------------------------------------------------


def torch_counter(model: nn.Module, x: Tensor, backward: bool = False) -> int:
    with FlopCounterMode(display=False) as counter:
        y = model(x)
        if backward:
            y.sum().backward()
    return counter.get_total_flops()


def on_meta(model: nn.Module, x: Tensor, backward: bool = False) -> int:
    return torch_counter(model.to("meta"), x.to("meta"), backward)


def fvcore(model: nn.Module, x: Tensor) -> int:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return 2 * int(analysis.total())


def ptflops(backend: str) -> Callable[[nn.Module, Tensor], int]:
    def count(model: nn.Module, x: Tensor) -> int:
        from ptflops import get_model_complexity_info

        macs, _ = get_model_complexity_info(
            model,
            tuple(x.shape[1:]),
            input_constructor=lambda _: {"x": x},
            as_strings=False,
            print_per_layer_stat=False,
            verbose=False,
            backend=backend,
        )
        return 2 * int(macs)

    return count


def thop(model: nn.Module, x: Tensor) -> int:
    from thop import profile

    return 2 * int(profile(model, inputs=(x,), verbose=False)[0])


def calflops(model: nn.Module, x: Tensor) -> int:
    from calflops import calculate_flops

    return int(
        calculate_flops(model, kwargs={"x": x}, output_as_string=False, print_results=False, print_detailed=False)[0]
    )


def torchinfo(model: nn.Module, x: Tensor) -> int:
    from torchinfo import summary

    return 2 * summary(model, input_data=x, verbose=0).total_mult_adds


FORWARD: Mapping[str, Callable[[nn.Module, Tensor], int]] = {
    "mlsys_studio": lambda model, x: flops(model, x, backward=False).total,
    "FlopCounterMode, meta": on_meta,
    "FlopCounterMode, CPU": torch_counter,
    "fvcore x2": fvcore,
    "ptflops pytorch x2": ptflops("pytorch"),
    "ptflops aten x2": ptflops("aten"),
    "thop x2": thop,
    "calflops": calflops,
    "torchinfo x2": torchinfo,
}
BOTH: Mapping[str, Callable[[nn.Module, Tensor], int]] = {
    "mlsys_studio": lambda model, x: flops(model, x).total,
    "FlopCounterMode, meta": lambda model, x: on_meta(model, x, backward=True),
    "FlopCounterMode, CPU": lambda model, x: torch_counter(model, x, backward=True),
}


def said(count: Callable[[nn.Module, Tensor], int], model: Model, truth: int, backward: bool) -> str:
    """ "exact", "-31.40 %", "x 5.1", "error" or "-" for what is not installed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.set_grad_enabled(backward):
            found = count(model.build().eval(), model.inputs())
    except ModuleNotFoundError:
        return "-"
    except Exception:  # noqa: BLE001  any of theirs is a result here
        return "error"
    if found == truth:
        return "exact"
    return f"x {found / truth:.1f}" if found > 2 * truth else f"{100 * (found / truth - 1):+.2f} %"


def table(title: str, counters: Mapping[str, Callable[[nn.Module, Tensor], int]], backward: bool) -> bool:
    """Prints it; True if ours is exact everywhere."""
    truths = [model.both if backward else model.forward for model in MODELS]
    print(f"\n{title}")
    print(f"{'':22}" + "".join(f"{model.name:>12}" for model in MODELS))
    print(f"{'truth, GFLOP':22}" + "".join(f"{truth / 1e9:>12.3f}" for truth in truths))
    ours_exact = True
    for name, count in counters.items():
        cells = [said(count, model, truth, backward) for model, truth in zip(MODELS, truths, strict=True)]
        print(f"{name:22}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
        if name == "mlsys_studio":
            ours_exact = set(cells) == {"exact"}
    return ours_exact


# -- 405 billion parameters ------------------------------------------------------------------------------------------------


def llama_405b() -> None:
    """In a process of its own, as JSON: for each pass [seconds, of them on a core], and the whole process's bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    h, layers, f, vocab, s = 16384, 126, 53248, 128256, 8192
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=h,
                num_hidden_layers=layers,
                num_attention_heads=128,
                num_key_value_heads=8,
                intermediate_size=f,
                vocab_size=vocab,
            )
        )
    truth = transformer(layers, s, h, f, 8 * 128, 3, s * h * vocab)
    found: dict[str, Any] = {"exact": True}
    for name, backward in (("forward", False), ("forward and backward", True)):
        wall, core = time.perf_counter(), time.process_time()
        found["exact"] &= flops(model, (1, s), backward=backward).total == truth * (3 if backward else 1)
        found[name] = time.perf_counter() - wall, time.process_time() - core
    print(json.dumps({**found, "bytes": peak_bytes()}))


def peak_bytes() -> int:
    """Most resident memory of this process; ru_maxrss would begin with that of the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status: peak memory is measured on Linux only")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--llama", action="store_true", help=argparse.SUPPRESS)
    if arguments.parse_args().llama:
        llama_405b()
        return 0
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    print(heading())
    for name in ("transformers", *PEERS):
        try:
            print(f"# {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"# {name} not installed")
    exact = table("Forward, batch 1, 128 tokens or one image", FORWARD, backward=False)
    exact &= table("Forward and backward", BOTH, backward=True)

    found = subprocess.run([sys.executable, __file__, "--llama"], capture_output=True, text=True, check=True)
    large = json.loads(found.stdout.splitlines()[-1])
    print("\nLlama-3.1-405B, 8192 tokens, as transformers builds it, on the meta device")
    missed = not (exact and large["exact"])
    for name, target in (("forward", SECONDS_FORWARD), ("forward and backward", SECONDS_BOTH)):
        seconds, on_core = large[name]
        missed |= seconds > target
        print(
            f"  {name:22}{seconds:6.2f} s   target {target:.1f}  {verdict(seconds, target)}; {on_core:.2f} s on a core"
        )
    memory = large["bytes"] / 1e9
    missed |= memory > GIGABYTES
    print(f"  {'whole process':22}{memory:6.2f} GB  target {GIGABYTES:.1f}  {verdict(memory, GIGABYTES)}")
    print(f"  {'closed form':22} {'equal' if large['exact'] else 'NOT EQUAL'}")
    return int(missed)


def verdict(value: float, target: float) -> str:
    return "ok" if value <= target else "MISSED"


if __name__ == "__main__":
    sys.exit(main())

"""`memory`: of a live model's step on tensors without data, of a known architecture by closed form, of a saved trace."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from ...profilers.errors import UsageError
from ..registry import Call, Expression, verb
from ..subject import SAYS, arguments, subject


@verb
def memory(
    model: Annotated[list[str] | None, SAYS] = None,
    *,
    trace: Annotated[Path | None, "of what was recorded instead: a profiler's trace or a CUDA memory snapshot"] = None,
    html: Annotated[Path | None, "with --trace: also write the page, which opens offline"] = None,
    figure: Annotated[Path | None, "with --trace: also write a figure to zoom into; needs plotly"] = None,
    inputs: Annotated[Any, Expression("of a live model: a tensor, a tuple, or a dict of keywords")] = None,
    run: Annotated[bool, "of a live model: also take the step for real, and ask the allocator"] = False,
    batch: Annotated[int, "sequences of a micro-batch on one rank; in inference all of a replica"] = 1,
    sequence: Annotated[int | None, "tokens of a sequence"] = None,
    mode: Annotated[Literal["train", "inference"], "training step or serving"] = "train",
    device: Annotated[str | None, "does it fit there; such as H100-SXM5-80GB"] = None,
    precision: Annotated[
        str | None, "mixed, bfloat16, float32, autocast …; in inference a dtype of the weights"
    ] = None,
    optimizer: Annotated[str | None, "adam, adamw, adamw8bit, sgd, momentum, lion, muon, adafactor"] = None,
    recompute: Annotated[Literal["none", "selective", "full"], "what runs again in the backward"] = "none",
    flash: Annotated[bool, "attention writes its probabilities"] = True,
    fused: Annotated[bool, "norms, gated activations and the loss are one kernel each"] = False,
    zero: Annotated[int, "ZeRO stage; 3 is FSDP's full shard"] = 0,
    dp: Annotated[int, "data parallel"] = 1,
    tp: Annotated[int, "tensor parallel"] = 1,
    pp: Annotated[int, "pipeline stages"] = 1,
    cp: Annotated[int, "context parallel"] = 1,
    ep: Annotated[int, "expert parallel"] = 1,
    sequence_parallel: Annotated[bool, "norms and dropouts split over the tensor-parallel ranks"] = False,
    schedule: Annotated[Literal["gpipe", "1f1b", "interleaved", "zero-bubble"], "of the pipeline"] = "1f1b",
    chunks: Annotated[int, "parts of the model on a stage, interleaved"] = 1,
    micro_batches: Annotated[int | None, "of a step; without it as many as stages"] = None,
    cache_dtype: Annotated[str | None, "of keys and values, in inference"] = None,
    block: Annotated[int, "tokens of cache reserved at a time, in inference; 16 in vLLM"] = 1,
    sliders: Annotated[bool, "what if: sliders for batch, sequence and layout"] = False,
    call: Call,
) -> Any:
    """What a training step or a server needs of a device's memory, part by part, and whether it fits."""
    layout = {"zero": zero, "dp": dp, "tp": tp, "pp": pp, "cp": cp, "ep": ep}
    asked = {
        "sequence": sequence,
        "batch": batch != 1,
        "mode": mode != "train",
        "device": device,
        "precision": precision,
        "recompute": recompute != "none",
        "no-flash": not flash,
        "fused": fused,
        **{name: degree != (name != "zero") for name, degree in layout.items()},
        "sequence-parallel": sequence_parallel,
        "schedule": schedule != "1f1b",
        "chunks": chunks != 1,
        "micro-batches": micro_batches,
        "cache-dtype": cache_dtype,
        "block": block != 1,
        "sliders": sliders,
    }
    if trace is not None:
        others = {"inputs": inputs is not None, "run": run, "optimizer": optimizer, **asked}
        return _recorded(trace, model, [name for name, given in others.items() if given], html, figure)
    if html is not None or figure is not None:
        raise UsageError(
            "--html and --figure are of what was recorded: type --trace trace.json as well, or leave them out"
        )
    if not model:
        raise UsageError(
            "memory of what? type a preset such as llama-3-8b, sizes such as hidden=4096, or --trace trace.json"
        )
    found = subject(model, call)
    from ...profilers.calculators.architecture import Transformer

    if not isinstance(found, Transformer):
        return _live(found, model[0], inputs, run, optimizer, [name for name, given in asked.items() if given])
    if inputs is not None or run:
        raise UsageError(
            f"--inputs and --run are for a live model, and {found.name} is known by its sizes; give --sequence"
        )
    if sequence is None:
        raise UsageError("memory depends on the tokens of a sequence; type for example --sequence 4096")
    settings = {
        "batch": batch,
        "sequence": sequence,
        "mode": mode,
        "device": device,
        "precision": precision,
        "optimizer": optimizer,
        "recompute": recompute,
        "flash": flash,
        "fused": fused,
        "micro_batches": micro_batches,
        "cache_dtype": cache_dtype,
        "block": block,
        "sequence_parallel": sequence_parallel,
        "schedule": schedule,
        "chunks": chunks,
        **layout,
    }
    if not sliders:
        return _estimate(found, **settings)
    from ..sliders import Slider, doublings, what_if

    moving = [
        Slider("batch", "sequences", doublings(1, 1024, batch)),
        Slider("sequence", "tokens a sequence", doublings(128, 131072, sequence)),
        Slider("dp", "data parallel", doublings(1, 1024, dp)),
        Slider("tp", "tensor parallel", doublings(1, 16, tp)),
    ]
    if mode == "train":
        moving.append(Slider("zero", "ZeRO stage", (0, 1, 2, 3)))
        moving.append(Slider("recompute", "recompute", ("none", "selective", "full")))
    return what_if(call.face, lambda **chosen: _estimate(found, **chosen), settings, moving)


def _estimate(model: Any, **chosen: Any) -> Any:
    from ...profilers.calculators.layout import Layout
    from ...profilers.calculators.memory import estimate

    layout = Layout(**{field.name: chosen.pop(field.name) for field in fields(Layout)})
    return estimate(model, layout=layout, **chosen)


def _recorded(path: Path, model: list[str] | None, asked: list[str], html: Path | None, figure: Path | None) -> Any:
    from ...profilers.traces.memory import memory_of
    from ..report import with_files

    if model or asked:
        extra = " ".join(model) if model else f"--{asked[0]}"
        raise UsageError(f"--trace is of what was recorded: leave out {extra!r}, which is for a model that is not run")
    return with_files(lambda: memory_of(path), html, figure, f"Memory in {path.name}")


def _live(model: Any, name: str, inputs: Any, run: bool, optimizer: str | None, asked: list[str]) -> Any:
    from ...profilers.calculators.live_memory import measure

    if asked:
        raise UsageError(
            f"--{asked[0]} is for presets and configs; {name} is a live model, so leave it out: --inputs x"
        )
    options = {"run": run, **({} if optimizer is None else {"optimizer": optimizer})}
    args, keywords = arguments(inputs)
    return measure(model, *args, **keywords, **options)

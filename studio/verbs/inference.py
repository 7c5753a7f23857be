"""`inference`: how fast a model can answer on a device at best."""

from __future__ import annotations

from typing import Annotated, Any

from ..registry import Call, verb
from ..subject import SAYS, sizes


@verb
def inference(
    model: Annotated[list[str], SAYS],
    *,
    device: Annotated[str, "such as H100-SXM5-80GB"],
    prompt: Annotated[int, "tokens of each prompt"] = 1024,
    output: Annotated[int, "tokens of each answer"] = 256,
    batch: Annotated[int, "sequences at a time"] = 1,
    dtype: Annotated[str, "of the weights"] = "bfloat16",
    cache_dtype: Annotated[str | None, "of keys and values; without it as the weights, 16 bits at least"] = None,
    compute_dtype: Annotated[str | None, "of the products; without it as the weights"] = None,
    tp: Annotated[int, "tensor parallel devices"] = 1,
    efficiency: Annotated[float, "share of peak and bandwidth that is reached; 1 gives lower bounds on time"] = 1.0,
    prefix_hit: Annotated[float, "share of the prompt that is cached already"] = 0.0,
    draft: Annotated[str | None, "speculative decoding: a smaller preset or config.json"] = None,
    acceptance: Annotated[float | None, "with --draft: the chance that its token is taken"] = None,
    drafts: Annotated[int, "with --draft: tokens it drafts a pass"] = 4,
    sliders: Annotated[bool, "what if: sliders for batch, prompt, output and devices"] = False,
    call: Call,
) -> Any:
    """Time to first token, time per token, largest and break-even batch on the roofline of a device."""
    from ...profilers.calculators.inference import inference as answer

    settings = {
        "model": sizes(model, call),
        "device": device,
        "prompt": prompt,
        "output": output,
        "batch": batch,
        "dtype": dtype,
        "cache_dtype": cache_dtype,
        "compute_dtype": compute_dtype,
        "tp": tp,
        "efficiency": efficiency,
        "prefix_hit": prefix_hit,
        "draft": draft,
        "acceptance": acceptance,
        "drafts": drafts,
    }
    if not sliders:
        return answer(**settings)
    from ..sliders import Slider, doublings, what_if

    moving = [
        Slider("batch", "sequences", doublings(1, 1024, batch)),
        Slider("prompt", "tokens a prompt", doublings(32, 131072, prompt)),
        Slider("output", "tokens an answer", doublings(16, 16384, output)),
        Slider("tp", "tensor parallel", doublings(1, 8, tp)),
        Slider("prefix_hit", "prompt in cache", tuple(sorted({0.0, 0.25, 0.5, 0.75, 0.9, prefix_hit}))),
    ]
    return what_if(call.face, answer, settings, moving)

"""`flops`: of a live model counted while it runs without data, of a known architecture in closed form."""

from __future__ import annotations

from typing import Annotated, Any

from ..registry import Call, Expression, verb
from ..subject import SAYS, arguments, subject


@verb
def flops(
    model: Annotated[list[str], SAYS],
    *,
    inputs: Annotated[
        Any, Expression("what it is called with: a tensor, a shape, a tuple, or a dict of keywords")
    ] = None,
    forward: Annotated[bool, "leave out the backward"] = False,
    batch: Annotated[int, "sequences, for a preset or config"] = 1,
    sequence: Annotated[int | None, "tokens of a sequence, for a preset or config"] = None,
    call: Call,
) -> Any:
    """Count the FLOPs of a step exactly: by phase, operator and module, and what cannot be counted."""
    from ...profilers.calculators.architecture import Transformer
    from ...profilers.calculators.convolutions import cost, known
    from ...profilers.errors import UsageError

    net = known(model[0]) if len(model) == 1 and model[0] not in (call.namespace or {}) else None
    if net is not None:
        if inputs is not None or forward or sequence is not None:
            raise UsageError(f"{net.name} is known by its sizes, on 224 x 224 pixels; type --batch and nothing else")
        return cost(net, batch)
    found = subject(model, call)
    if isinstance(found, Transformer):
        from ...profilers.calculators.transformer import transformer

        if inputs is not None:
            raise UsageError(
                f"--inputs are for a model of the notebook, and {found.name} is known by its sizes; type --sequence 2048"
            )
        if forward:
            raise UsageError(f"{found.name} is known by its sizes, and every pass is shown; leave out --forward")
        return transformer(found, batch=batch, sequence=sequence)
    if sequence is not None or batch != 1:
        option = "--batch" if sequence is None else "--sequence"
        raise UsageError(f"{option} is for presets and configs; {model[0]} is a live model, so type --inputs x")
    from ...profilers.calculators.live import flops as count

    args, keywords = arguments(inputs)
    return count(found, *args, backward=not forward, **keywords)

"""A live count against the closed form of the same model: two witnesses that share no line of code.

Only a model that is what its config says can be checked: transformers' own class, of a family with a closed form, with
as many parameters as the form has (LoRA adds some), and called with tokens or pixels alone. Any other is not checked,
and that is said. Where both are known and differ, one is wrong, and neither is shown as if it were right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .architecture import Transformer
from .compute import training_flops
from .hugging_face import from_config
from .parameters import count as count_parameters

if TYPE_CHECKING:
    from .flop_count import FlopCount

_BESIDE = {
    "attention_mask",
    "labels",
    "token_type_ids",
    "decoder_attention_mask",
    "use_cache",
    "return_dict",
}  # no FLOP


def cross_check(count: FlopCount, model: Any, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> str:
    """What a count of `model(*inputs, **named)` was compared with, or why it was not, in a few words.

    Raises
    ------
    UsageError
        Where the closed form has another number; the sentence shows both.
    """
    try:
        if count.uncounted:
            raise UsageError("some operators are uncounted")
        known = _closed_form(model)
        shape = _shape(known, model, inputs, named)
    except UsageError as why:
        return f"not compared with a closed form: {why}"
    batch, sequence, source = shape
    passes = training_flops(known, batch=batch, sequence=sequence, encoder_sequence=source)
    pairs = [("forward", count.forward, passes.forward.total)]
    if count.backward and not count.recompute and all(each.requires_grad for each in model.parameters()):
        pairs.append(("backward", count.backward, passes.backward.total))
    for phase, live, closed in pairs:
        if live != closed:
            raise UsageError(
                f"the {phase} of {count.model} has {live:,} FLOP as it ran and {closed:,} by the closed form of its "
                f"config: one of the two is wrong, so neither is shown; please report it with the config"
            )
    return f"equal to the closed form of a {model.config.model_type} config, {' and '.join(pair[0] for pair in pairs)}"


def _closed_form(model: Any) -> Transformer:
    config, kind = getattr(model, "config", None), type(model)
    if not hasattr(config, "to_dict") or not kind.__module__.startswith("transformers."):
        raise UsageError("it is no model of transformers")
    known = from_config(config, kind.__name__)
    kept = [each for name, each in model.named_buffers() if name.endswith("e_score_correction_bias")]
    live = sum(each.numel() for each in (*model.parameters(), *kept))
    if live != count_parameters(known).total:
        raise UsageError(f"it has {live:,} parameters and its config says {count_parameters(known).total:,}")
    return known


def _shape(
    known: Transformer, model: Any, inputs: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[int, int, int | None]:
    """Sequences, their tokens, and an encoder's tokens."""
    given = {**named, **({getattr(model, "main_input_name", "input_ids"): inputs[0]} if inputs else {})}
    tokens = given.pop("pixel_values" if known.patch else "input_ids", None)
    decoder = given.pop("decoder_input_ids", given.get("labels")) if known.encoder else None
    more = [name for name, value in given.items() if value is not None and name not in _BESIDE]
    if tokens is None or len(inputs) > 1 or more or (known.encoder and decoder is None):
        raise UsageError(f"it was called with more than its {'pixels' if known.patch else 'tokens'}")
    batch, *sizes = tokens.shape
    if known.patch:
        patches = (sizes[-1] // known.patch) * (sizes[-2] // known.patch)
        return batch, patches + 1, None
    return (batch, sizes[0], None) if decoder is None else (batch, decoder.shape[1], sizes[0])

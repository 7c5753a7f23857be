"""A transformer before it runs: parameters, FLOP of its passes, and where asked MFU, days, energy and money.

transformer("llama-3-8b", sequence=8192, device="H100-SXM5-80GB", mfu=0.4, devices=512, tokens=15e12)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import UsageError
from ..hardware import Device
from ..views.sheet import Bars, Figures, Row, Sheet, Shown
from ..views.units import flop, percent, three
from .amounts import positive, whole
from .architecture import Transformer
from .compute import Flops, Training, decode_flops, forward_flops, prefill_flops, training_flops
from .conventions import compared, flops_per_token, named
from .models import model as named_model
from .parameters import Parameters, count
from .presets import note
from .recompute import Recompute
from .training import Run, run
from .utilization import Peak, Utilization, peak_of, utilization

USUAL_SEQUENCE = 2048  # where none is given and the model's context is longer


@dataclass(frozen=True, slots=True)
class Report(Shown):
    """FLOP are of `batch` sequences of `sequence` tokens, counted exactly; those a token are the convention's."""

    model: Transformer
    batch: int
    sequence: int
    parameters: Parameters
    forward: Flops
    training: Training
    prefill: Flops
    decode: Flops | None  # of one more token for each sequence; None where the model does not generate
    convention: str
    recompute: Recompute
    flops_per_token: float  # of training, for MFU
    hardware_flops_per_token: float  # for HFU
    peak: Peak | None = None
    utilization: Utilization | None = None
    run: Run | None = None

    @property
    def attention_share(self) -> float:
        """Of the forward: the products that grow with the square of the sequence."""
        return self.forward.attention_share

    def to_json(self) -> str:
        """Every figure, with the names they have here."""
        return json.dumps(_plain(self), indent=1)

    def sheet(self) -> Sheet:
        parts = [
            Figures("Parameters", self._parameters()),
            _bars("Parameters by part", self.parameters, _PARTS),
            Figures(f"FLOP of {self.batch:,} x {self.sequence:,} tokens", self._flops()),
            _bars("A forward's FLOP by part", self.forward, tuple(each.name for each in fields(self.forward))),
            compared(self.model, self.sequence),
        ]
        if self.utilization is not None:
            parts.append(Figures("Utilization", self.utilization.rows()))
        if self.run is not None:
            parts.append(Figures("The whole run", self.run.rows()))
        return Sheet(self.model.name, self._basis(), tuple(parts), self._notes())

    def _basis(self) -> str:
        sizes = f"{self.model.layers} layers, hidden {self.model.hidden:,}, vocabulary {self.model.vocab:,}"
        peak = (
            f" Peak: {three(self.peak.flops / 1e12)} TFLOP/s {self.peak.dtype}, {self.peak.source}."
            if self.peak
            else ""
        )
        return f"{sizes}. Sizes: {self.model.provenance}.{peak}"

    def _parameters(self) -> tuple[Row, ...]:
        p = self.parameters
        rows = [
            Row("total", f"{p.total:,}", f"{three(p.total / 1e9)} B" if p.total >= 1e9 else f"{three(p.total / 1e6)} M")
        ]
        if p.idle:
            rows.append(Row("active", f"{p.active:,}", f"{percent(p.active / p.total)} of them for one token"))
        rows.append(Row("multiplied with a token", f"{p.matmul_active:,}", "matrices; no tables, norms and biases"))
        return tuple(rows)

    def _flops(self) -> tuple[Row, ...]:
        share = f"attention's products {percent(self.attention_share)} of it"
        rows = [
            Row("forward", flop(self.forward.total), f"every product, attention over all pairs; {share}"),
            Row("training step", flop(self.training.model), "forward and backward"),
        ]
        if self.training.recomputed.total:
            again = flop(self.training.recomputed.total)
            rows.append(Row("and recomputed", again, f"recompute {self.recompute}; for HFU"))
        if self.decode is not None:
            rows.append(Row("prefill", flop(self.prefill.total), "logits of the last token only"))
            rows.append(Row("decode", flop(self.decode.total), f"one token each, after {self.sequence - 1:,} others"))
        per_token = flop(self.flops_per_token)
        rows.append(
            Row("training, a token", per_token, f"convention {self.convention}: {named(self.convention).formula}")
        )
        return tuple(rows)

    def _notes(self) -> tuple[str, ...]:
        said = [f"{self.convention}: {named(self.convention).source}.", "A multiply-add is 2 FLOP."]
        if 0 < self.model.context < self.sequence:
            said.append(f"{self.sequence:,} tokens are more than the {self.model.context:,} this model was made for.")
        return (*said, *([f"{left_out}."] if (left_out := note(self.model.name)) else []))


def transformer(
    config: Any = None,
    *,
    batch: int | None = None,
    sequence: int | None = None,
    convention: str = "counted",
    recompute: Recompute = "none",
    device: Device | str | None = None,
    dtype: str = "bfloat16",
    peak: float | None = None,
    devices: int = 1,
    tokens_per_second: float | None = None,
    iteration_seconds: float | None = None,
    flops_per_second: float | None = None,
    mfu: float | None = None,
    tokens: float | None = None,
    power_w: float | None = None,
    pue: float | None = None,
    kg_per_kwh: float | None = None,
    price_per_device_hour: float | None = None,
    **sizes: Any,
) -> Report:
    """Parameters and FLOP of a model, by a preset's name, a config.json (path, dict, config object) or its sizes.

    Parameters
    ----------
    batch, sequence
        Of one step, over all devices; by default one sequence, whose iteration has no time then, of the model's context
        and at most 2048 tokens.
    convention, recompute
        How training FLOP a token are counted, and what the run computes a second time.
    device, dtype, peak
        Whose dense peak a share is of: a device's name, or `peak` in FLOP/s by hand.
    tokens_per_second, iteration_seconds, flops_per_second, mfu
        One of these makes the others: tokens of all `devices` together, seconds of a step of batch x sequence tokens,
        FLOP/s of one device by the convention, or a share from 0 to 1.
    tokens, power_w, pue, kg_per_kwh, price_per_device_hour
        A whole run at that speed: days and device-hours; with watts a device and PUE the energy, CO2e, and the cost.
    **sizes
        Of a model by keyword, as `sizes.build` takes them: hidden=, layers=, heads=, vocab=, ...

    Raises
    ------
    UsageError
        One sentence: an unknown preset, family, device, dtype or convention, a size that cannot be, a share above 100 %.
    """
    known = named_model(config, **sizes)
    longest = known.context or known.positions or USUAL_SEQUENCE
    length = min(longest, USUAL_SEQUENCE) if sequence is None else whole("sequence", sequence)
    known.reaches(length)
    sequences = 1 if batch is None else whole("batch", batch)
    needed = flops_per_token(known, length, convention)
    done = flops_per_token(known, length, convention, recompute)
    rates = {
        "tokens_per_second": tokens_per_second,
        "iteration_seconds": iteration_seconds,
        "flops_per_second": flops_per_second,
        "mfu": mfu,
    }
    at = used = None
    if any(each is not None for each in rates.values()):
        at = peak_of(device, dtype, peak)
        used = utilization(
            needed,
            at,
            devices=devices,
            hardware_flops_per_token=done,
            tokens_per_iteration=None if batch is None else sequences * length,
            convention=convention,
            **rates,
        )
    elif whole("devices", devices) > 1:
        raise UsageError(f"{devices:,} devices share a run's speed, and none is given; give mfu= or tokens_per_second=")
    elif device is not None or peak is not None:
        at = peak_of(device, dtype, peak)
    costs = {"power_w": power_w, "pue": pue, "kg_per_kwh": kg_per_kwh, "price_per_device_hour": price_per_device_hour}
    generates = known.head and known.stack[-1].block.attention.causal
    return Report(
        model=known,
        batch=sequences,
        sequence=length,
        parameters=count(known),
        forward=forward_flops(known, batch=sequences, sequence=length),
        training=training_flops(known, batch=sequences, sequence=length, recompute=recompute),
        prefill=prefill_flops(known, batch=sequences, sequence=length),
        decode=decode_flops(known, batch=sequences, context=length) if generates else None,
        convention=convention,
        recompute=recompute,
        flops_per_token=needed,
        hardware_flops_per_token=done,
        peak=at,
        utilization=used,
        run=_run(needed, tokens, used, costs),
    )


def _run(
    flops_per_token: float, tokens: float | None, used: Utilization | None, costs: Mapping[str, float | None]
) -> Run | None:
    """Time and costs of so many tokens at the speed of `used`; None where it is not asked how many."""
    if tokens is None:
        if any(each is not None for each in costs.values()):
            raise UsageError("energy, CO2e and cost are of a whole run; give its tokens= as well")
        return None
    total = flops_per_token * positive("tokens", tokens)
    if used is None:
        raise UsageError(
            "a run's time needs its speed; give mfu=, tokens_per_second= or iteration_seconds=, and a device"
        )
    return run(total, devices=used.devices, flops_per_second=used.flops_per_second, tokens=tokens, **costs)


_PARTS = ("embedding", "positions", "attention", "mlp", "router", "norms", "head")


def _bars(title: str, parts: Any, names: tuple[str, ...]) -> Bars:
    total = parts.total
    values = [(name, getattr(parts, name)) for name in names]
    rows = tuple((name, percent(value / total), (value / total,)) for name, value in values if value)
    return Bars(title, ("share",), rows)


def _plain(value: Any) -> Any:
    """Dataclasses to dicts with their totals and shares beside their fields; the model by its name and sizes."""
    if not hasattr(value, "__dataclass_fields__"):
        return [_plain(each) for each in value] if isinstance(value, tuple) else value
    found = {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    computed = [name for name, kind in vars(type(value)).items() if isinstance(kind, property)]
    return {**found, **{name: _plain(getattr(value, name)) for name in computed}}

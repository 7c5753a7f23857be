"""Activations kept for the backward."""

from __future__ import annotations

from ..errors import UsageError
from .amounts import positive, whole
from .recompute import Recompute


def korthikanti_activation_bytes(
    *,
    sequence: int,
    batch: int,
    hidden: int,
    heads: int,
    layers: int = 1,
    tp: int = 1,
    sequence_parallel: bool = False,
    recompute: Recompute = "none",
    itemsize: float = 2,
) -> float:
    """Bytes a device keeps of `layers` GPT layers, as Korthikanti et al. 2022, arXiv:2205.05198, Table 2 has them.

                                      none                             selective
        no parallelism, equation 1    sbh (34 + 5 as/h)                34 sbh
        tensor, 2                     sbh (10 + 24/t + 5 as/(ht))      sbh (10 + 24/t)
        and sequence parallel, 4      sbh/t (34 + 5 as/h)              34 sbh/t (6)
        full                          2 sbh

    For 16-bit numbers and dropout masks of one byte; the fp32 statistics of norms are left out. Another `itemsize`
    scales all of it, masks too, as is often done.
    """
    for name, size in {"sequence": sequence, "batch": batch, "hidden": hidden, "heads": heads}.items():
        whole(name, size)
    whole("layers", layers)
    whole("tp", tp)
    positive("itemsize", itemsize)
    if heads % tp:
        raise UsageError(f"{heads} heads do not divide over tp={tp}; give a tp that divides {heads}")
    if recompute == "full":
        per_hidden = 2.0
    else:
        scores = score_bytes_over_hidden(sequence=sequence, hidden=hidden, heads=heads)
        scores = 0.0 if recompute == "selective" else scores
        per_hidden = (34 + scores) / tp if sequence_parallel else 10 + (24 + scores) / tp
    return layers * sequence * batch * hidden * per_hidden * itemsize / 2


def score_bytes_over_hidden(*, sequence: int, hidden: int, heads: int) -> float:
    """5 as/h: what scores, softmax and dropout keep, over sbh; 80 for GPT-3 (arXiv:2205.05198, section 5)."""
    return 5 * whole("heads", heads) * whole("sequence", sequence) / whole("hidden", hidden)

"""Which event ends a step: a policy that counts what happens in a loop and answers one question, and does nothing else.

A step ends with the optimizer that steps least often, the last of them where several step equally often: a GAN's
step is one round of both, five critic updates and one generator update are one step. Where no optimizer steps, the
fallbacks are, in order: the next batch (inference), the outermost forward call, the end of a backward pass.
"""

from __future__ import annotations

from collections import Counter

PATIENCE = 64  # backward passes without an optimizer, steps of others without the one that ends a step: then it is gone
EARLY = 4  # events of a kind before a loop without backward is taken for inference
SETTLED = 20  # an optimizer first seen after so many steps belongs inside a step


class Boundary:
    """Feed every event; `closes` says whether it ends a step, `unit` names what a step is by now."""

    def __init__(self) -> None:
        self.unit = ""  # "" until known
        self.changes = 0  # how often the unit changed: whoever counts steps starts again
        self.optimizer_steps = 0  # once there are any, nothing but an optimizer ends a step
        self._seen: Counter[str] = Counter()
        self._optimizers: dict[int, int] = {}  # id -> steps, in order of first appearance
        self._closer: int | None = None
        self._closed = 0
        self._waited = 0  # steps of other optimizers since the one that ends a step

    def closes(self, kind: str, who: int = 0, name: str = "") -> bool:
        """kind: "optimizer" | "data" | "forward" | "backward"; `who` and `name` tell optimizers apart."""
        if kind == "optimizer":
            self.optimizer_steps += 1
            ends = self._optimizer(who, name)
        else:
            self._seen[kind] += 1
            ends = self._fallback(kind)
        self._closed += ends
        return ends

    def _optimizer(self, who: int, name: str) -> bool:
        self._waited = 0 if who == self._closer else self._waited + 1
        if self._waited >= PATIENCE:  # another fold, another phase of the training
            self._optimizers, self._closer, self._waited = {}, None, 0
        if who not in self._optimizers and self._closer is not None and self._closed > SETTLED:
            return False
        self._optimizers[who] = self._optimizers.get(who, 0) + 1
        if who == self._closer and len(self._optimizers) == 1:
            return True
        rarest = min(self._optimizers.values())
        closer = [o for o, n in self._optimizers.items() if n == rarest][-1]
        if self._closer not in self._optimizers or (
            closer != self._closer and len(self._optimizers) > 1 and who == closer
        ):
            self._closer = closer
            self._become(f"optimizer step ({name})" if name else "optimizer step")
        return who == self._closer

    def _fallback(self, kind: str) -> bool:
        if self._closer is not None:
            return False
        if not self.unit:
            backward = self._seen["backward"]
            waited = backward >= PATIENCE or (not backward and self._seen[kind] >= EARLY)
            leads = kind == self.leading
            if waited and leads:
                self._become(FALLBACKS[kind])
        return self.unit == FALLBACKS[kind]

    @property
    def leading(self) -> str:
        """The fallback this loop would use: the first kind of the order that has happened at all."""
        return next((k for k in FALLBACKS if self._seen[k]), "")

    def _become(self, unit: str) -> None:
        self.changes += self.unit != "" or self._closed > 0
        self.unit = unit


FALLBACKS = {
    "data": "batch (no optimizer stepped)",
    "forward": "outermost forward call (no optimizer stepped, no DataLoader seen)",
    "backward": "backward pass (no optimizer stepped, no DataLoader seen)",
}

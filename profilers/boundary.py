"""Which event ends a step: a policy that counts what happens in a loop and answers one question, and does nothing else.

A step ends with the optimizer that steps least often, the last of them where several step equally often: a GAN's
step is one round of both, five critic updates and one generator update are one step. Nobody knows in the first round
what a round is: `fragments` says afterwards how many steps were parts of one. Where no optimizer steps, the fallbacks
are, in order: the next batch (inference), the outermost forward call, the end of a backward pass.
"""

from __future__ import annotations

from collections import Counter

PATIENCE = 64  # backward passes without an optimizer: then nobody will step
EARLY = 4  # events of a kind before a loop without backward is taken for inference
SETTLED = 8  # an optimizer first seen after so many steps belongs inside a step
RAREST = 20  # one that steps less often than this belongs inside a step too


class Boundary:
    """Feed every event; the answer says whether it ends a step, and `unit` names what a step is by now.

    `fragments`: so many of the last steps, this one included, are one. Whoever keeps steps joins them and sets it to 0.
    """

    def __init__(self) -> None:
        self.unit = ""  # "" until known
        self.changes = 0  # how often the unit changed: whoever counts steps starts again
        self.optimizer_steps = 0  # once there are any, nothing but an optimizer ends a step
        self.fragments = 0
        self._seen: Counter[str] = Counter()
        self._ended = 0  # steps, fragments included
        self._last: dict[int, int] = {}  # optimizer, but for the closer -> `_ended` after its last step
        self._closer: int | None = None  # the optimizer that ends a step
        self._reign = 0  # `_ended` when it took over
        self._training = 0  # `_ended` when the first of those it alternates with took over
        self._waited = 0  # steps of others since its last
        self._longest = 0  # so many it has let pass before
        self._newcomer = False  # it has stepped once, after others
        self._alternates = False  # it is known to end rounds of several optimizers
        self._frequent: set[int] = set()  # optimizers that gave way to one that steps less often

    def event(self, kind: str) -> bool:
        """kind: "data" | "forward" | "backward"."""
        self._seen[kind] += 1
        ends = self._fallback(kind)
        self._ended += ends
        return ends

    def optimizer(self, who: int, name: str = "") -> bool:
        """An optimizer has stepped; `who` tells it apart from others while it lives."""
        self.optimizer_steps += 1
        if who == self._closer:
            if self._waited or self._newcomer:
                self._again()
            self._ended += 1
            return True
        ends = self._takes_over(who, name)
        self._ended += ends
        self._last[who] = self._ended
        return ends

    @property
    def settled(self) -> int:
        """The optimizer whose every step ends a step of the loop, as things stand; 0 for none."""
        return 0 if self._closer is None or self._waited or self._newcomer else self._closer

    def again(self, steps: int) -> None:
        """`settled` has stepped so many times more."""
        self.optimizer_steps += steps
        self._ended += steps

    def forget(self, who: int) -> None:
        """An optimizer died: nobody waits for it, and its id may become another's."""
        self._last.pop(who, None)
        self._frequent.discard(who)
        if who == self._closer:
            self._closer = None

    # -- optimizers ----------------------------------------------------------------------------------------------------

    def _again(self) -> None:
        """The closer steps once more."""
        if self._newcomer:  # twice in a row: no round, but a training of its own
            self._newcomer, self._training, self._longest = False, self._reign, 0
        self._longest, self._waited = max(self._longest, self._waited), 0

    def _takes_over(self, who: int, name: str) -> bool:
        """Another optimizer steps: does it end steps from now on?"""
        self._waited += 1
        known = self._last.get(who)
        apart = self._ended - known if known is not None else 0
        if self._newcomer and known is not None:  # after the newcomer the round begins again: it was the first
            self.fragments = self._ended - self._training
            self._last = dict.fromkeys(self._last, self._ended - 1)  # all of them stepped within one step
            self.changes += 1
            self._newcomer, self._alternates = False, True
            return False
        if 2 <= apart <= RAREST and who not in self._frequent:  # it steps less often than the closer
            self.fragments = apart + 1
            self._last = dict.fromkeys(self._last, self._ended)
            self._longest, self._alternates, self._newcomer = apart, True, False
            if self._closer is not None:
                self._frequent.add(self._closer)
        elif self._closer is None or self._waited > max(1, 2 * self._longest):  # the closer is gone
            returns = known is not None and known <= self._reign
            self._longest, self._alternates, self._newcomer = self._waited * returns, False, False
            self._training = self._ended
        elif known is None and not self._alternates and self._ended - self._reign <= SETTLED:
            self._newcomer, self._longest = True, self._ended - self._training
        else:
            return False
        if self._closer is not None:
            self._last[self._closer] = self._ended
        self._closer, self._waited, self._reign = who, 0, self._ended
        self._become(f"optimizer step ({name})" if name else "optimizer step")
        return True

    # -- without an optimizer ---------------------------------------------------------------------------------------

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
        self.changes += self.unit != "" or self._ended > 0
        self.unit = unit


FALLBACKS = {
    "data": "batch (no optimizer stepped)",
    "forward": "outermost forward call (no optimizer stepped, no DataLoader seen)",
    "backward": "backward pass (no optimizer stepped, no DataLoader seen)",
}

"""Healthy data loaders; in some a read fails and is retried, or replaced."""

from __future__ import annotations

from causes.healthy import run

LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, index):
        {item}
        return torch.full(($width,), float(index))

def main():
    total = 0
    for epoch in range({epochs}):
        for step, rows in enumerate(DataLoader(Rows(), batch_size=$batch, {options})):
            total += len(rows)
            log.info("epoch %d batch %d rows %d", epoch, step, len(rows))
    log.info("done, %d rows in all", total)

if __name__ == "__main__":
    main()
"""
RETRY = """for attempt in range(3):
            try:
                if index % 30 == 7 and attempt < 1:
                    raise {error}
                break
            except {kind}:
                log.{level}("read of row %d failed, attempt %d, retrying", index, attempt{info})"""


def loader(
    name: str,
    item: str = "pass",
    *,
    options="num_workers=0",
    epochs=1,
    trap=False,
    cause="finished_ok",
    says=("done, 96 rows",),
    **rest,
) -> None:
    run(cause, f"loader_{name}", LOADER.format(item=item, options=options, epochs=epochs), says, trap=trap, **rest)


loader("plain")
loader("workers", options="num_workers=2")
loader("epochs", options="num_workers=1, persistent_workers=True", epochs=2, says=("done, 192 rows",))
loader("slow", "time.sleep(0.02)", cause="slow_but_working")
loader("spawn", options='num_workers=1, multiprocessing_context="spawn"')
loader("many_workers", options="num_workers=3", cause="benign_warning", trap=True)
loader(
    "retry_timeout",
    RETRY.format(error='TimeoutError("read timed out")', kind="TimeoutError", level="warning", info=""),
    trap=True,
    says=("retrying", "done, 96 rows"),
)
loader(
    "retry_traceback",
    RETRY.format(error='OSError(5, "Input/output error")', kind="OSError", level="warning", info=", exc_info=True"),
    trap=True,
    says=("OSError: [Errno 5]", "done, 96 rows"),
)
loader(
    "skips_broken",
    'if index % 40 == 9:\n            log.warning("row %d: UnicodeDecodeError in caption, replaced by an empty one", index)',
    trap=True,
)

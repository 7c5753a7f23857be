"""Profiles built by hand, for tests of what is done with them."""

from __future__ import annotations

import random

from mlsys_studio.profilers.allocations import CATEGORIES, Block, Instant, MemoryUse
from mlsys_studio.profilers.ledger import CAUSES, PHASES, Basis, Entry, Evidence, Ledger
from mlsys_studio.profilers.profile import Finding, Memory, OperatorRow, Profile, StepTimes, Trial
from mlsys_studio.profilers.stacks import SourceLine

MS = 1_000_000

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload="alert(1)">',
    "' onmouseover='alert(1)",
    "</style></title></svg><script>alert(1)</script>",
    "<!-- <a href='javascript:alert(1)'>x</a>",
    "&lt;b&gt; &#x3c;i> ]]> <![CDATA[",
    "https://evil.example/x.png",
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07link",
    "\u202egnitset\u202c שלום مرحبا",
    "nul\x00 bell\x07 back\x08space \ud800 \ufeff",
    "e\u0301" * 50 + "\u0301" * 2000,
    "名前" * 100,
    "👩‍👩‍👧‍👦🇩🇪✈️" * 20,
    "aten::mm_" + "x" * 10_000,
    "",
    " \n\r\t\u2028\u2029 ",
)


def ledger(cells: dict[tuple[str, str], int], steps: int = 5, name: str = "aten::addmm [512×256, 256×1024]") -> Ledger:
    wall = sum(cells.values())
    entries = tuple(
        Entry(p, c, ns, ns / wall, (Evidence(name, ns // 2, 40), Evidence("aten::add_ [256]", ns // 8, 8)))
        for (p, c), ns in sorted(
            cells.items(), key=lambda cell: (list(CAUSES).index(cell[0][1]), PHASES.index(cell[0][0]))
        )
    )
    basis = Basis("AMD EPYC 7B13, 2 cores", "float32", "float32", 195e9, "measured on this machine")
    return Ledger(wall, steps, entries, basis, 83 * 10**9)


def typical() -> Profile:
    """A byte-level GPT on a CPU whose loader tokenises in the main process."""
    cells = {
        ("forward", "useful"): 23_111_201,
        ("backward", "useful"): 46_400_117,
        ("backward", "recompute"): 9_020_003,
        ("forward", "ceiling"): 6_901_440,
        ("backward", "ceiling"): 9_303_114,
        ("forward", "memory"): 14_200_000,
        ("backward", "memory"): 24_700_321,
        ("optimizer", "memory"): 12_020_777,
        ("forward", "inefficiency"): 21_300_000,
        ("backward", "inefficiency"): 30_110_000,
        ("forward", "launch"): 6_230_000,
        ("backward", "launch"): 8_400_999,
        ("optimizer", "launch"): 3_300_000,
        ("other", "launch"): 300_000,
        ("data", "data stall"): 131_500_000,
        ("logging", "io"): 4_100_000,
        ("other", "python"): 5_600_000,
        ("forward", "gc"): 900_000,
        ("other", "measurement"): 3_210_000,
        ("other", "unattributed"): 2_345_678,
    }
    noise = random.Random(7)
    account = ledger(cells)
    operators = tuple(
        OperatorRow(name, phase, shapes, "float32", calls, ns, flops, traffic, bound, share)
        for name, phase, shapes, calls, ns, flops, traffic, bound, share in (
            ("aten::addmm", "backward", "[512×256] [256×1024]", 40, 61 * MS, 21 * 10**9, 120 * 2**20, "compute", 0.81),
            ("aten::addmm", "forward", "[512×256] [256×1024]", 40, 40 * MS, 11 * 10**9, 60 * 2**20, "compute", 0.74),
            (
                "aten::_scaled_dot_product_flash_attention_for_cpu",
                "forward",
                "[8×4×64×64] ×3",
                20,
                17 * MS,
                10**9,
                9 * 2**20,
                "compute",
                0.31,
            ),
            (
                "aten::native_layer_norm_backward",
                "backward",
                "[8×64×256]",
                45,
                12 * MS,
                None,
                30 * 2**20,
                "memory",
                0.55,
            ),
            ("aten::_fused_adamw_", "optimizer", "42 tensors", 5, 12 * MS, None, 130 * 2**20, "memory", 0.92),
            ("aten::gelu", "forward", "[8×64×1024]", 20, 8 * MS, None, 16 * 2**20, "memory", 0.61),
            ("aten::add_", "forward", "[256]", 900, 4 * MS, None, 2**20, "launch", 0.02),
            ("aten::my_custom_op", "forward", "[8×64]", 5, 2 * MS, None, None, "uncounted", None),
            *(
                (f"aten::small_{i}", "forward", "[64]", 5, MS // (i + 2), None, 2**12, "launch", 0.01)
                for i in range(12)
            ),
        )
    )
    return Profile(
        "Training cell [4]: byte-level GPT on the standard library's sources",
        "2026-08-01T12:00:00+00:00",
        StepTimes(
            unit="optimizer step (AdamW)",
            warmup=(912 * MS, 201 * MS, 99 * MS),
            clean=tuple(int(70 * MS * noise.lognormvariate(0, 0.04)) for _ in range(24)),
            window=tuple(account.wall_ns // 5 + d * MS for d in (1, -1, 2, -2, 0)),
            phases={"data": 26 * MS, "forward": 14 * MS, "backward": 25 * MS, "optimizer": 3 * MS, "other": MS},
            compile_ns=640 * MS,
            total_ns=3_900 * MS,
        ),
        account,
        operators,
        Memory(1_320_000_000, 9 * 2**30, 11 * 2**30, 80 * 2**30),
        (
            Finding(
                "data-stall",
                "The step waits for the loader",
                "37 % of the step is spent in next(loader): ByteFiles.__getitem__ tokenises in the main process.",
                1.58,
                26 * MS,
                "loader-workers",
                "Pass it to the loader: `DataLoader(..., num_workers=2, persistent_workers=True)`.",
            ),
            Finding(
                "small-batch",
                "The batch is too small for the matmuls",
                "addmm [512×256] reaches 74 % of its ceiling, and launch takes 5 %.",
                1.12,
                8 * MS,
                None,
                "Raise batch_size to 16 and scale the learning rate with it.",
            ),
        ),
        (
            Trial(
                "data-stall",
                "loader-workers",
                1.58,
                1.51,
                1.44,
                1.57,
                True,
                "The gain is beyond the spread of 3 %.",
                0.0,
            ),
        ),
        {
            "python": "3.11.7",
            "torch": "2.13.0",
            "host": "gpu7.corp.example",
            "cpu": "AMD EPYC 7B13",
            "threads": "2",
            "cwd": "/home/ann/llm",
        },
        (
            "window disturbed by 2.1 ms; taken twice, the calmer one kept",
            "3 operators have no cost formula: my_custom_op",
        ),
    )


def light() -> Profile:
    whole = typical()
    return Profile(whole.title, whole.created, whole.steps, None)


def empty() -> Profile:
    return Profile("nothing", "2026-08-01T12:00:00Z", StepTimes("optimizer step", (), (), (), {}), None)


def text_for(dice: random.Random) -> str:
    return dice.choice((*HOSTILE, "aten::mm", "plain text", "x" * dice.randrange(30)))


def hostile() -> Profile:
    """Each hostile string in every place that takes a text."""
    return anything(random.Random(0), every=HOSTILE)


def anything(dice: random.Random, every: tuple[str, ...] | None = None) -> Profile:
    """A random profile; with `every`, one that holds each of these strings in each kind of place."""
    strings = every or tuple(text_for(dice) for _ in range(dice.randrange(4)))

    def word() -> str:
        return "|".join(s[:200] for s in strings) if every else text_for(dice)

    def ratio() -> float | None:
        return dice.choice((None, dice.uniform(0, 9), 1e300, float("inf")))

    def ns() -> int:
        return dice.choice((0, 1, dice.randrange(10**4), dice.randrange(10**8), dice.randrange(10**15)))

    cells = {
        (p, c): dice.randrange(1, 10 ** dice.randrange(1, 13)) for p in PHASES for c in CAUSES if dice.random() < 0.2
    }
    cells[("other", "unattributed")] = 1
    account = ledger(cells, dice.randrange(1, 9))
    evidence = tuple(Evidence(s, ns(), dice.randrange(99)) for s in strings)
    entries = tuple(type(e)(e.phase, e.cause, e.nanoseconds, e.share, evidence) for e in account.entries)
    basis = Basis(word(), word(), word(), dice.choice((None, 1e12, 3e15)), word(), word())

    def walls() -> tuple[int, ...]:
        return tuple(ns() for _ in range(dice.randrange(40)))

    def maybe() -> int | None:
        return dice.choice((None, ns()))

    whole = Ledger(account.wall_ns, account.steps, entries, basis, ns(), strings)
    by_phase = {phase: ns() for phase in PHASES if dice.random() < 0.5}
    instants = tuple(Instant(ns(), word(), tuple(ns() for _ in CATEGORIES)) for _ in range(dice.randrange(1, 40)))
    use = MemoryUse(word(), ns(), instants, tuple(Block(s, s, s, s, ns()) for s in strings))
    return Profile(
        word(),
        word(),
        StepTimes(word(), walls(), walls(), walls(), by_phase, ns(), ns(), {s: walls() for s in strings}, ns()),
        whole if every else dice.choice((None, whole)),
        tuple(OperatorRow(s, word(), s, word(), ns(), ns(), maybe(), maybe(), word(), ratio()) for s in strings * 3),
        dice.choice((None, Memory(ns(), maybe()))),
        tuple(Finding(s, s, s, ratio(), ns(), dice.choice((None, s)), s) for s in strings),
        tuple(Trial(s, s, ratio(), 1.5, 0.5, 2.5, dice.random() < 0.5, s, ratio()) for s in strings),
        {s: s for s in strings},
        strings,
        lines=tuple(SourceLine(s, ns(), s, s, ns(), {s: ns()}) for s in strings * 3),
        memory_use=dice.choice((None, use)) if not every else use,
        disturbed_ns=ns(),
    )

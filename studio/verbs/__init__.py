"""The verbs, one file each. The magic, the command, completion, `--help` and `--json` are all read off the functions.

To add the verb `slowest`, write `studio/verbs/slowest.py` and put "slowest" into NAMES below:

    @verb(cell="optional")                                  # "none" (the default) | "optional" | "required"
    def slowest(
        script: Annotated[str | None, "what to run"] = None,              # positional: SLOWEST [SCRIPT]
        *arguments: Annotated[str, "the script's own arguments"],         # what follows `--`
        model: Annotated[Any, Expression("the model")] = None,            # --model EXPR: the user's own object
        dtype: Annotated[Literal["bf16", "fp32"], "precision"] = "bf16",  # --dtype {bf16,fp32}
        only_slow: Annotated[bool, "leave out what is fast"] = False,     # --only-slow
        call: Call,                                                       # not typed: face, namespace, cell, show
    ) -> Slowest:
        \"\"\"Say which operators take longest.\"\"\"   # first line: shown by `mlsys --help`
        from ..profiling import profile                     # late: parsing, help and completion never load torch

Every parameter that is typed needs `Annotated[type, "help"]`; the type is str, int, float, Path, bool, a Literal, one of
these `| None`, or a list of one (several words). Refuse bad input with `UsageError`: one sentence, with what to type.
A result shows itself: `_repr_mimebundle_` in a notebook, `str()` in a terminal, `to_json()` (or a dataclass) for
`--json`, and its `exit_code`, if it has one, ends the command. In a cell that raises, `call.cell.run()` raises the user's
own exception: finish, `call.show(what there is)`, and let it go on.
"""

# In the order of `mlsys --help`; a verb's file has the verb's name.
NAMES = (
    "profile",
    "fix",
    "report",
    "trace",
    "compare",
    "roofline",
    "diagnose",
    "flops",
    "transformer",
    "mfu",
    "memory",
    "inference",
    "plan",
    "data",
    "io",
    "monitor",
    "doctor",
)

"""The diagnosis: single messages, healthy runs, first cause before last error, the contract, and bad input."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest
from diagnosis_healthy import HEALTHY, QUIET
from diagnosis_messages import MESSAGES

from mlsys_studio import UsageError, diagnose
from mlsys_studio.profilers.diagnosis.bounded import refused
from mlsys_studio.profilers.diagnosis.lines import parse
from mlsys_studio.profilers.diagnosis.literals import required_literals
from mlsys_studio.profilers.diagnosis.rules import DATA, rules


@pytest.mark.parametrize("category", MESSAGES)
def test_each_message_is_of_the_category_its_source_gives_it(category: str):
    wrong = [line for line in MESSAGES[category].strip("\n").split("\n") if diagnose(line + "\n").category != category]
    assert not wrong


@pytest.mark.parametrize("run", HEALTHY)
def test_nothing_failed_in_a_healthy_run(run: str):
    found = diagnose(HEALTHY[run])
    assert (found.category, found.cause) == ("healthy", None)


def test_a_line_that_names_a_failure_reports_none():
    """Each alone, and each within a run."""
    quiet = QUIET.strip("\n").split("\n")
    steps = "".join(f"step {n} loss {3 - n / 100:.3f}\n" for n in range(5))
    told = {line for line in quiet if diagnose(line + "\n").category != "healthy"}
    told |= {line for line in quiet if diagnose(f"{steps}{line}\nstep 5 loss 2.9\n").category != "healthy"}
    assert not told


RANK_3_FIRST = """\
2025-03-01 10:12:13 [rank0]:[E301 10:12:13.100 ProcessGroupNCCL.cpp:632] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE)
2025-03-01 10:12:13 [rank1]:[E301 10:12:13.200 ProcessGroupNCCL.cpp:632] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE)
2025-03-01 10:02:11 [rank3]: Traceback (most recent call last):
2025-03-01 10:02:11 [rank3]:   File "train.py", line 7, in step
2025-03-01 10:02:11 [rank3]:     loss.backward()
2025-03-01 10:02:11 [rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
2025-03-01 10:12:15 W Sending process 71 closing signal SIGTERM
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""


def test_the_first_cause_is_told_before_what_followed():
    found = diagnose(RANK_3_FIRST)
    first, *then = found.chain
    assert (found.category, found.evidence[0].rank, found.evidence[0].line) == ("gpu_oom", 3, 6)
    assert (first.role, first.rank, first.time) == ("cause", 3, "2025-03-01 10:02:11")
    assert then and {link.role for link in then} == {"consequence"}


BOOM = """\
Traceback (most recent call last):
  File "train.py", line 7, in <module>
    main()
  File "train.py", line 3, in main
    x = layer(y)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""
STEPS = "".join(f"step {n} | loss {3 - n / 100:.3f}\n" for n in range(6))
# What a launcher or a container runtime puts before each line, and the rank or host it names.
PREFIXES = {
    "": (None, None),
    " 3: ": (3, None),
    "[pod/train-worker-0/pytorch] ": (None, "train-worker-0"),
    "2026-03-01T03:14:45.000101118Z stderr F ": (None, None),
    "trainer-1  | ": (None, None),
    "[rank5]: ": (5, None),
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_hides_no_traceback(prefix: str):
    found = diagnose("".join(f"{prefix}{line}\n" for line in (STEPS + BOOM).splitlines()))
    assert found.category == "gpu_oom"
    assert (found.evidence[0].rank, found.evidence[0].host, found.evidence[0].line) == (*PREFIXES[prefix], 12)


def test_what_was_dealt_with_gives_way_to_what_ended_the_run():
    caught = "WARNING: probing\n" + BOOM.replace("<module>", "probe") + "INFO fits on the second attempt\n"
    refused = "[W socket.cpp:697] [c10d] The client socket has failed to connect to [node-0]:29500 (errno: 111 - Connection refused).\n"
    ends = "OSError: [Errno 28] No space left on device: '/out'\n"
    assert diagnose(caught + STEPS + ends).category == "storage_io"
    assert diagnose(refused + STEPS + ends).category == "storage_io"
    assert diagnose(caught + STEPS).category == "healthy"


def test_bars_drawn_after_an_uncaught_exception_are_no_progress():
    bars = "".join(f" {n}%|#  | {n}/100 [00:0{n}<01:00, 3.1it/s]\n" for n in range(1, 6))
    assert diagnose(STEPS + BOOM + bars).category == "gpu_oom"


def test_a_traceback_without_its_end_is_undecided():
    found = diagnose(STEPS + "\n".join(BOOM.splitlines()[:-1]) + "\n")
    assert found.category is None and found.checks


def test_a_finalizer_and_a_replaced_look_up_are_no_causes():
    finalizer = "Exception ignored in: <function Run.__del__ at 0x7f>\nTraceback (most recent call last):\n  File \"a.py\", line 3, in __del__\nAttributeError: 'Run' object has no attribute 'end'\n"
    assert diagnose(BOOM + finalizer).category == "gpu_oom"
    replaced = "Traceback (most recent call last):\n  File \"a.py\", line 3, in get\nKeyError: 'zstd'\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 5, in <module>\nModuleNotFoundError: No module named 'zstandard'\n"
    assert diagnose(replaced).category == "missing_dependency"


def test_ranks_of_joined_files_and_of_the_launchers_table():
    joined = "==> rank1.log <==\n" + STEPS + "\n==> rank0.log <==\n" + STEPS + BOOM
    assert diagnose(joined).evidence[0].rank == 0
    table = "train.py FAILED\n[0]:\n  time      : 2026-01-01_00:00:00\n  rank      : 6 (local_rank: 2)\n  exitcode  : -11 (pid: 12)\n"
    assert diagnose(table).evidence[0].rank == 6


WAITED = """\
[rank0]: step 4 done
[rank1]: step 4 done
[rank2]: step 4 done
[rank2]: reading shard 17
[rank0]: RuntimeError: [unbound_buffer.cc:78] Timed out waiting 8000ms for recv operation to complete
[rank1]: RuntimeError: [unbound_buffer.cc:78] Timed out waiting 8000ms for recv operation to complete
"""


def test_a_hang_is_the_matter_of_the_rank_that_did_not_come():
    found = diagnose(WAITED)
    assert (found.category, found.evidence[0].rank, found.evidence[0].line) == ("collective_hang", 2, 4)
    assert {link.role for link in found.chain[1:]} == {"consequence"}
    named = (
        "Rank 1 successfully reached monitoredBarrier, but received errors while waiting for send/recv from rank 0.\n"
    )
    assert diagnose("[rank0]: saving\n[rank1]: RuntimeError: " + named).evidence[0].rank == 0
    nobody = WAITED.replace("[rank2]", "[rank1]")  # all that are known have complained
    assert diagnose(nobody).evidence[0].line == 5


# Words that hold others: install (stall), import (port), inference (inf), compile (mpi); and what they are not.
HOLD_OTHERS = {
    "ImportError: DeepEP is not available. Please install the DeepEP package": ("dist_init", "collective_hang"),
    "ValueError: transfer inference is supported only for video outputs": ("numerical",),
    "RuntimeError: torch.compile is not supported on Python 3.15+": ("dist_init",),
    "ValueError: No video stream in /data/clip.mp4": ("gpu_oom",),
    "ValueError: --radix-eviction-policy requires a threshold": ("job_scheduler",),
}


@pytest.mark.parametrize("message", HOLD_OTHERS)
def test_a_word_within_a_word_names_no_failure(message: str):
    assert diagnose(message + "\n").category not in HOLD_OTHERS[message]


def test_a_tracebacks_last_line_is_its_exception_whatever_its_type():
    frames = 'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\n    run()\n'
    assert diagnose(frames + "Exception: CUDA out of memory\n").category == "gpu_oom"
    assert diagnose(frames + "app.Refused: [Errno 28] No space left on device\n").category == "storage_io"
    wrapped = "RuntimeError: \n        the worker could not start: No space left on device\n"
    assert diagnose(frames + wrapped).category == "storage_io"


def test_the_losses_of_two_ranks_are_two_courses():
    steps = [f"[rank{rank}]: step {n} loss {(6 if rank else 2) - n / 50:.2f}\n" for rank in (0, 1) for n in range(8)]
    assert diagnose("".join(steps)).category == "healthy"


def test_a_retry_announced_at_the_end_is_not_known_to_have_worked():
    waits = "[c10d] The client socket has timed out after 60000ms while trying to connect to (node-0, 29500).\n"
    again = "[c10d] TCP client failed to connect to node-0:29500 - retrying (try=0)\n"
    assert diagnose(waits + again).category == "dist_init"
    assert diagnose(waits + again + "step 1 loss 2.0\n").category == "healthy"


def test_words_in_quoted_source_did_not_happen():
    found = diagnose('  File "a.py", line 3, in f\n    raise MemoryError("CUDA out of memory")\nKeyError: \'labels\'\n')
    assert found.category == "data_format"


def test_only_consequences_are_undecided_and_say_what_would_decide():
    found = diagnose(
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\ntrain.py FAILED\nexitcode  : 1 (pid: 3)\n"
    )
    assert found.category is None and found.cause is None and found.checks


def test_a_folder_of_ranks_names_the_rank_of_its_file(tmp_path):
    for rank in range(4):
        said = (
            "RuntimeError: CUDA error: uncorrectable ECC error encountered\n"
            if rank == 2
            else "Connection reset by peer\n"
        )
        (tmp_path / f"rank_{rank}.log").write_text("step 1 loss 2.0\n" + said)
    found = diagnose(tmp_path)
    assert (found.category, found.evidence[0].rank, found.evidence[0].source) == ("gpu_hardware", 2, "rank_2.log")


def test_line_numbers_are_those_of_a_large_packed_file(tmp_path):
    """Witness: the position at which the test wrote the line."""
    at, lines = 40_000, [f"step {n} time 0.2" for n in range(60_000)]
    lines[at - 1] = "OSError: [Errno 28] No space left on device: '/out'"
    path = tmp_path / "run.log.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    found = diagnose(path)
    # Work went on after it, so it is told as dealt with; its line is the original's all the same.
    assert [each.line for each in found.evidence] == [at]


def test_an_exception_is_read_with_its_chain():
    try:
        try:
            {}["input_ids"]
        except KeyError as error:
            raise RuntimeError("worker exited") from error
    except RuntimeError as error:
        assert diagnose(error).category == "data_format"


def test_the_contract_of_json_and_no_torch(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("RuntimeError: CUDA error: an illegal memory access was encountered\n<script>alert(1)</script>\n")
    code = "import sys; from mlsys_studio.studio.command import main; c = main(sys.argv[1:]); print('torch' in sys.modules, file=sys.stderr); sys.exit(c)"
    ended = subprocess.run(
        [sys.executable, "-c", code, "diagnose", str(path), "--json"], capture_output=True, text=True, check=False
    )
    said = json.loads(ended.stdout)
    assert ended.returncode == 0 and ended.stderr.strip() == "False"
    assert list(said) == [
        "schema",
        "category",
        "cause",
        "confidence",
        "summary",
        "evidence",
        "chain",
        "fix",
        "checks",
        "alternatives",
    ]
    assert set(said["evidence"][0]) == {"source", "line", "rank", "host", "time", "text"}
    assert set(said["chain"][0]) == {"event", "cause", "rank", "host", "time", "line", "role"}
    assert set(said["checks"][0]) == {"command", "why", "result"} and said["checks"][0]["result"] is None


def test_views_fit_and_escape():
    found = diagnose("RuntimeError: CUDA out of memory <script>alert(1)</script> " + "x" * 300 + "\n")
    assert max(map(len, str(found).splitlines())) <= 80
    assert "<script>" not in found._repr_mimebundle_()["text/html"]


def test_every_cause_of_the_knowledge_base_can_be_told_and_mended():
    known = rules().causes
    assert len({(cause.category, cause.id) for cause in known}) == len(known) == 128
    assert all(cause.summary and cause.fixes and cause.checks and cause.source for cause in known)


def test_a_line_that_matches_holds_a_literal_of_its_pattern():
    """Property of the index: what it leaves out could not have matched."""
    lines = [line for group in MESSAGES.values() for line in group.strip().split("\n")][::7]
    for signal in rules().index.always + [s for its in rules().index._grams.values() for _, s in its][::3]:
        literals = required_literals(signal.line)
        for line in lines:
            if literals and signal.pattern.search(line):
                assert any(literal in line.lower() for literal in literals)


def test_prefixes_give_rank_host_and_time():
    line = parse("node-7: [rank3]: 2025-03-01 10:02:11,123 ERROR train.py:7 boom", 1)
    assert (line.rank, line.host, line.time, line.level) == (3, "node-7", "2025-03-01 10:02:11,123", "error")
    assert parse("(VllmWorker rank=5 pid=9, ip=10.0.0.7) ERROR 06-11 01:51:09 [a.py:5] x", 1).rank == 5
    assert parse("\x1b[31mError\x1b[0m", 1).text == "Error"


@pytest.mark.parametrize("content", [b"\x00" * 5000, b"\x7fELF" + bytes(range(256)) * 40])
def test_a_binary_file_is_refused(tmp_path, content: bytes):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(UsageError, match="not a text"):
        diagnose(tmp_path / "a.bin")


def test_odd_texts_are_read(tmp_path):
    (tmp_path / "empty.log").write_bytes(b"")
    assert diagnose(tmp_path / "empty.log").category is None
    (tmp_path / "wide.log").write_bytes("RuntimeError: CUDA out of memory\n".encode("utf-16"))
    assert diagnose(tmp_path / "wide.log").category == "gpu_oom"
    (tmp_path / "latin.log").write_bytes(b"caf\xe9\nRuntimeError: CUDA out of memory\n")
    assert diagnose(tmp_path / "latin.log").category == "gpu_oom"
    (tmp_path / "long.log").write_bytes(b"a" * 10_000_000 + b"\nRuntimeError: CUDA out of memory\n")
    assert diagnose(tmp_path / "long.log").category == "gpu_oom"


def test_rules_of_the_user(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'category = "storage_io"\n[[cause]]\nid = "tape"\nsummary = "The tape is stuck."\ncertain = ["robot arm E\\\\d+ not homed"]\n'
    )
    assert diagnose("ERROR robot arm E17 not homed\n", rule_files=[mine]).cause == "tape"
    mine.write_text("category = 1 [")
    with pytest.raises(UsageError, match="not TOML"):
        diagnose("x\n", rule_files=[tmp_path / "mine.toml"]) if not rules.cache_clear() else None
    assert refused("(a+)+b") and refused("(") and not refused("a+b")


def test_a_slow_pattern_of_the_user_is_given_up(tmp_path):
    mine = tmp_path / "slow.toml"
    mine.write_text('category = "x"\n[[cause]]\nid = "y"\nsummary = "z"\ncertain = ["(a|aa)+$"]\n')
    found = diagnose("error " + "a" * 60 + "!\nRuntimeError: CUDA out of memory\n", rule_files=[mine])
    assert found.category == "gpu_oom" and any("too slow" in note for note in found.notes)


def test_the_data_are_files_of_the_package():
    assert len(list(DATA.glob("*.toml"))) == 18

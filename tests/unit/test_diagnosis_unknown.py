"""What is said of exceptions and lines that no rule knows: named by how they are built, never called healthy."""

import pytest

from mlsys_studio import diagnose
from mlsys_studio.profilers.diagnosis.lines import parse
from mlsys_studio.profilers.diagnosis.unknown import between_packages, owner

SITE = "/opt/env/lib/python3.11/site-packages"

# Types and messages made up for this test: no library raises them.
BUILT = {
    "the grammar of the type": ("feather.CheckpointSlabError: slab 7 of 9 has a bad tail", "checkpoint_artifact"),
    "the words of the message": ("RuntimeError: utterance 81 gives an annotation for no speaker", "data_format"),
    "the code that raised it": (
        f"""Traceback (most recent call last):
  File "/w/fit.py", line 3, in <module>
    quux(x)
  File "{SITE}/quux/kernels/plan.py", line 9, in autotune
    raise RuntimeError("tile plan rejected")
RuntimeError: tile plan rejected""",
        "gpu_kernel_compile",
    ),
}
MET = f"""Traceback (most recent call last):
  File "/w/fit.py", line 3, in <module>
    fit()
  File "{SITE}/aardvark/fit.py", line 9, in fit
    self.zebra.prepare(x)
  File "{SITE}/zebra/prepare.py", line 5, in prepare
    return self._herd
AttributeError: 'Herd' object has no attribute '_herd'
"""


@pytest.mark.parametrize("how", BUILT)
def test_an_exception_that_no_rule_knows_is_named_by_how_it_is_built(how: str):
    text, category = BUILT[how]
    found = diagnose(text + "\n")
    assert found.category == category
    assert found.confidence <= 0.6


def test_an_attribute_that_another_package_lacks_is_a_matter_of_versions():
    assert diagnose(MET).category == "version_mismatch"
    assert diagnose(MET.replace(f"{SITE}/aardvark", "/w/mine")).category == "code_error"


@pytest.mark.parametrize(
    "line",
    [
        "the frobnicator died in bay 4",
        "brzk: could not settle the spindle",
        "Fleet member 3 was terminated",
        "glorp returned -6",
        "frob: exit code 12",
    ],
)
def test_a_line_that_says_that_something_broke_is_never_healthy(line: str):
    for text in (line, f"step 1 loss 2.0\nstep 2 loss 1.9\nstep 3 loss 1.8\n{line}"):
        assert diagnose(text + "\n").category != "healthy"
    assert diagnose(f"{line}\nstep 4 loss 1.7\nTraining complete.\n").category == "healthy"


def test_records_below_an_error_break_nothing():
    text = "2031-01-01 10:00:00,000 - quux - INFO - cleaning:\n    [12 rows could not be used]\n"
    assert diagnose(text).category == "healthy"


@pytest.mark.parametrize(
    "frame, whose",
    [
        (f'  File "{SITE}/torch/nn/modules/module.py", line 5, in f', "torch"),
        ('  File "/opt/env/lib/python3.11/json/decoder.py", line 5, in f', "python"),
        ('  File "/home/mei/train.py", line 5, in f', ""),
    ],
)
def test_whose_code_a_frame_is_of(frame: str, whose: str):
    assert owner(frame) == whose


def test_only_calls_that_do_not_fit_lie_between_packages():
    frames = [f'File "{SITE}/b/x.py", line 1, in f', f'File "{SITE}/a/x.py", line 1, in f']
    assert between_packages("TypeError: f() got an unexpected keyword argument 'k'", frames)
    assert not between_packages("TypeError: bad operand", frames)
    assert not between_packages("TypeError: f() got an unexpected keyword argument 'k'", [frames[0], frames[0]])
    assert not between_packages("TypeError: f() got an unexpected keyword argument 'k'", ['File "/w/x.py"', frames[0]])


@pytest.mark.parametrize(
    "raw, text, level, rank",
    [
        ("2021-06-23 15:36:48,834 - mmcv - INFO - loaded", "loaded", "info", None),
        ("[1,3]<stderr>:RuntimeError: x", "RuntimeError: x", "", 3),
        ("[E ProcessGroupNCCL.cpp:828] [Rank 1] boo", "boo", "error", 1),
        ("[36m(func pid=1)[0m RuntimeError: x", "RuntimeError: x", "", None),
        ("x[5m] = 3", "x[5m] = 3", "", None),
    ],
)
def test_what_stands_before_a_line(raw: str, text: str, level: str, rank: int | None):
    line = parse(raw, 1)
    assert (line.text.strip(), line.level, line.rank) == (text, level, rank)


CUT = f"""Traceback (most recent call last):
  File "/w/fit.py", line 3, in <module>
    fit()
  File "{SITE}/torch/_dynamo/output_graph.py", line 9, in call_user_compiler
    raise BackendCompilerFailed(self.compiler_fn, e)
"""


def test_a_traceback_that_breaks_off_is_named_by_what_it_was_about_to_raise():
    for text in (CUT, CUT.partition("\n")[2]):  # with its header, and without
        found = diagnose(text)
        assert (found.category, found.cause) == ("gpu_kernel_compile", "torch_compile_failure")
        assert found.confidence <= 0.6


def test_a_traceback_that_breaks_off_in_the_launcher_tells_nothing():
    assert (
        diagnose(CUT.replace("BackendCompilerFailed", "ChildFailedError").replace("_dynamo", "distributed")).category
        is None
    )


def test_the_stack_of_a_process_that_goes_on_breaks_nothing():
    frames = '  File "/w/fit.py", line 3 in step\n  File "/w/fit.py", line 9 in main\n'
    steps = "".join(f"step {n} loss {3 - n / 100:.3f}\n" for n in range(5))
    assert diagnose(f"{steps}Thread 0x00007f (most recent call first):\n{frames}{steps}").category == "healthy"


def test_what_a_logger_says_before_its_traceback_is_read():
    said = "ERROR shmutils: Error while creating shared memory segment /dev/shm/nccl-xyz (size 9637888), "
    found = diagnose(f'{said}Traceback (most recent call last):\n  File "/w/fit.py", line 3, in <module>\n')
    assert (found.category, found.cause) == ("storage_io", "shm_too_small")


def test_the_last_error_that_nccl_met_goes_before_the_class_of_its_result():
    result = "ncclInternalError: Internal check failed.\n"
    assert diagnose(result).category == "dist_init"
    assert diagnose(f"{result}Last error:\nNet : Connection closed by remote peer n7<50260>\n").category == "network"


def test_what_a_line_gives_as_the_reason_goes_before_what_it_reports():
    report = "RuntimeError: the NCCL communicator was aborted on rank 1"
    assert diagnose(f"{report}: ncclInternalError\n").category == "dist_init"
    why = "Original reason for failure was: [Rank 1] Watchdog caught collective operation timeout"
    assert diagnose(f"{report}. {why}\n").category == "collective_hang"


def test_one_step_of_work_after_a_warning_is_enough():
    warning = "[W socket.cpp:663] [c10d] The client socket has failed to connect to [n7]:29500 (errno: 111 - Connection refused).\n"
    assert diagnose(f"{warning}Epoch 1 step 10 loss 2.33\n").category == "healthy"
    assert diagnose(warning).category != "healthy"


def test_a_key_alone_above_its_traceback_is_a_key_error():
    log = "ERROR engine.py:366] 'layers.0.mlp.down_proj.weight'\n"
    header = "ERROR engine.py:366] Traceback (most recent call last):\n"
    assert diagnose(log + header).category == "checkpoint_artifact"
    assert diagnose(log).category != "checkpoint_artifact"

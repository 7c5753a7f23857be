"""How a process ended: what shells, launchers, schedulers and IDEs print, against signal(7) and the POSIX shell's codes."""

import signal

import pytest

from mlsys_studio import diagnose
from mlsys_studio.profilers.diagnosis.endings import MEANS, SIGNALS, ending, normal

KILL, SEGV, BUS, ABRT, ILL = (-int(getattr(signal, f"SIG{name}")) for name in ("KILL", "SEGV", "BUS", "ABRT", "ILL"))

TOLD = {
    "make: *** [train] exit status 139": SEGV,
    "container exited with code 137": KILL,
    "Exit Code: 134": ABRT,
    "subprocess returned -6": ABRT,
    "rank 3 exited due to signal 9": KILL,
    "caught signal 7 (Bus error: nonexistent physical address)": BUS,
    "Command '['python', 'train.py']' died with <Signals.SIGKILL: 9>.": KILL,
    "Process finished with exit code -1073741819 (0xC0000005)": SEGV,
    "JobId=127441 WTERMSIG 9": KILL,
    "State=FAILED ExitCode=0:9": KILL,
    "zsh: illegal hardware instruction  python train.py": ILL,
    "[1]    75076 killed     python main.py": KILL,
    "mpirun noticed that process rank 2 with PID 0 on node n1 exited on signal 11 (Segmentation fault).": SEGV,
    "  exitcode  : -9 (pid: 2434)": KILL,
    "Training task exit with status code 137": KILL,
    "Job exited with error code 137": KILL,
    "Error: Process completed with exit code 1.": 1,
    "the job ended with exit code 0": 0,
}
SILENT = [
    "step 137 loss 2.1",
    "returned 3 results",
    "HTTP status 200",
    "GET /x 404",
    "signal to noise ratio 9",
    "status 1",
    "exit criteria: 5",
]


@pytest.mark.parametrize("line", TOLD)
def test_each_parents_words_give_the_same_number(line: str):
    assert ending(line) == TOLD[line]


@pytest.mark.parametrize("line", SILENT)
def test_other_numbers_are_no_ending(line: str):
    assert ending(line) is None


def test_signals_have_their_numbers():
    assert {int(getattr(signal, f"SIG{name}")) for name in SIGNALS} == set(SIGNALS.values())
    assert [normal(128 + n) for n in (1, 9, 31)] == [-1, -9, -31]
    assert normal(127) == 127  # a shell's "not found", no signal


@pytest.mark.parametrize("code", MEANS)
def test_an_ending_without_any_other_word_is_named(code: int):
    found = diagnose(f"the trainer on n7 ended: exit code {code}\n")
    assert (found.category, found.cause) == MEANS[code]


def test_a_program_that_says_why_goes_before_how_it_ended():
    text = "RuntimeError: CUDA error: uncorrectable ECC error encountered\nprocess 3 exited with code 134\n"
    assert diagnose(text).category == "gpu_hardware"


def test_exit_code_1_alone_tells_nothing_and_is_not_healthy():
    assert diagnose("Error: Process completed with exit code 1.\n").category is None
    assert diagnose("the job ended with exit code 0\n").category == "healthy"


def test_what_finished_with_an_exit_code_did_not_end_well():
    text = "step 1 loss 2.0\nTraining process finished. Exit code: 137\n"
    assert diagnose(text).category == "host_oom"
    assert diagnose(text.replace("137", "0")).category == "healthy"


def test_an_aborted_job_is_no_sigabrt():
    text = "Per user-direction, the job has been aborted.\nmpirun noticed that process rank 7 exited on signal 9 (Killed).\n"
    assert diagnose(text).category == "host_oom"
    assert diagnose("python: malloc.c:2617\nAborted (core dumped)\n").category == "gpu_kernel_compile"

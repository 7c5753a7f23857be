"""Event pairs on a stand-in for torch.cuda that counts what it is asked and never lets anybody wait."""

from mlsys_studio.profilers.device_times import DeviceTimes


class Cuda:
    """A device that is at `now` (ms) and will reach each event when it gets there."""

    def __init__(self):
        self.queued, self.now, self.capturing = 0.0, 0.0, False

    def is_current_stream_capturing(self):
        return self.capturing

    def Event(self, enable_timing):
        assert enable_timing
        cuda = self

        class Event:
            def record(self):
                self.at = cuda.queued

            def synchronize(self):
                cuda.now = max(cuda.now, self.at)

            def query(self):
                return cuda.now >= self.at

            def elapsed_time(self, other):
                return other.at - self.at

        return Event()


def step(cuda, times, key, milliseconds):
    times.begin()
    cuda.queued += milliseconds
    times.end(key)


def test_a_step_is_read_only_once_the_device_has_passed_it():
    cuda = Cuda()
    times = DeviceTimes(cuda)
    step(cuda, times, 1, 10.0)
    assert times.walls == {}
    cuda.now = 10.0
    step(cuda, times, 2, 5.0)
    assert times.walls == {1: 10_000_000}
    cuda.now = 99.0
    times.read()
    assert times.walls == {1: 10_000_000, 2: 5_000_000}


def test_nothing_is_recorded_while_a_graph_is_captured():
    cuda = Cuda()
    times = DeviceTimes(cuda)
    cuda.capturing = True
    step(cuda, times, 1, 10.0)
    cuda.capturing = False
    step(cuda, times, 2, 10.0)
    cuda.now = 99.0
    times.read()
    assert set(times.walls) == {2}


def test_after_the_loop_the_last_steps_are_waited_for_once():
    cuda = Cuda()
    times = DeviceTimes(cuda)
    step(cuda, times, 1, 10.0)
    step(cuda, times, 2, 5.0)
    times.wait()
    assert times.walls == {1: 10_000_000, 2: 5_000_000}


def test_a_clock_on_a_device_knows_each_steps_time_there(monkeypatch):
    """Of a whole loop whose device works 1 ms longer each step. Witness: the stand-in's own arithmetic."""
    import torch
    from loops import mlp, train

    from mlsys_studio.profilers import step
    from mlsys_studio.profilers.step import StepClock

    cuda, wanted = Cuda(), []

    def queue():
        wanted.append(len(wanted) + 1)
        cuda.queued += wanted[-1]

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(step, "DeviceTimes", lambda _: DeviceTimes(cuda))
    with StepClock() as clock:
        train(mlp(), batches=30, between=queue)
    clock.settle()
    assert clock.count == 30
    known = [clock.wall(s) for s in clock.steps][1:]  # whether there is a device is asked as the first step ends
    assert known == [ms * 1_000_000 for ms in wanted[1:]]

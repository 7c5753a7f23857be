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

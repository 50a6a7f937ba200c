from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from chase.exporters.tensorrt.progress import Phases, interruptible, monitor_of

TRT: Any = SimpleNamespace(IProgressMonitor=object)


def test_a_phase_within_another_counts_as_one_step_of_it() -> None:
    phases, seen = Phases(), []

    phases.start("build", None, 2)
    seen.append(phases.fraction())
    phases.start("time", "build", 4)
    phases.step("time")
    seen.append(phases.fraction())  # a quarter of the first half
    phases.start("kernels", "time", 2)
    phases.step("kernels")
    seen.append(phases.fraction())  # a half of the second eighth more
    phases.finish("kernels")
    phases.finish("time")
    phases.step("build")
    seen.append(phases.fraction())
    phases.step("build")
    seen.append(phases.fraction())

    assert seen == [0, 1 / 8, 3 / 16, 1 / 2, 1]


def test_progress_never_goes_back_and_ends_at_all_of_it() -> None:
    phases = Phases()
    phases.start("build", None, 4)
    phases.start("time", "build", 1)
    phases.step("time")
    before = phases.fraction()

    phases.finish("time")  # before its step of the build is complete
    assert (before, phases.fraction()) == (0.25, 0.25)

    phases.finish("build")
    assert phases.fraction() == 1


def test_a_step_too_many_or_of_an_unknown_phase_changes_nothing() -> None:
    phases = Phases()
    phases.start("build", None, 0)
    for name in ("build", "build", "other"):
        phases.step(name)
    phases.finish("other")

    assert phases.fraction() == 1


def test_the_monitor_tells_each_state_once() -> None:
    told: list[Any] = []
    monitor = monitor_of(TRT, lambda *state: told.append(state))

    monitor.phase_start("build", None, 1000)
    assert all(monitor.step_complete("build", step) for step in range(15))
    monitor.phase_finish("build")

    assert told == [(0, 100, "build"), (1, 100, "build"), (100, 100, "build")]


def test_an_error_of_the_listener_cancels_and_is_kept() -> None:
    def fail(done: int, total: int, what: str) -> None:
        raise OSError("the terminal is gone")

    monitor = monitor_of(TRT, fail)
    monitor.phase_start("build", None, 2)

    assert monitor.step_complete("build", 0) is False
    with pytest.raises(OSError, match="the terminal is gone"), interruptible(monitor):
        pass


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_cancels_the_build_and_is_raised_after_it() -> None:
    monitor = monitor_of(TRT, lambda *state: None)
    answers: list[bool] = []
    before = signal.getsignal(signal.SIGINT)

    def build() -> None:
        with interruptible(monitor):
            os.kill(os.getpid(), signal.SIGINT)
            answers.append(monitor.step_complete("build", 0))

    with pytest.raises(KeyboardInterrupt):
        build()

    assert answers == [False]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_program_that_handles_ctrl_c_itself_keeps_its_handler() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        monitor = monitor_of(TRT, lambda *state: None)
        with interruptible(monitor):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)

    assert heard == [signal.SIGINT]
    assert monitor.error is None

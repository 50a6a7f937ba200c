"""Progress of a build: TensorRT's nested phases as one number, and a build that can be interrupted."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chase.exporters.job import Progress

TOTAL = 100
"""What the progress of a build is counted up to."""


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


@dataclass
class Phases:
    """The phases of a build that have begun and not finished; a phase within another counts as one step of that."""

    open: dict[str, _Phase] = field(default_factory=dict)
    reached: float = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self.open[name] = _Phase(parent, max(1, steps))

    def step(self, name: str) -> None:
        if phase := self.open.get(name):
            phase.done = min(phase.done + 1, phase.steps)

    def finish(self, name: str) -> None:
        phase = self.open.pop(name, None)
        if phase and phase.parent not in self.open:
            self.reached = 1.0

    def fraction(self) -> float:
        """The part of the build that is done, in [0, 1]; it never goes back."""
        outermost = [name for name, phase in self.open.items() if phase.parent not in self.open]
        self.reached = max([self.reached, *(self._done(name) for name in outermost)])
        return self.reached

    def _done(self, name: str) -> float:
        phase = self.open[name]
        within = [self._done(each) for each, other in self.open.items() if other.parent == name]
        return min(1.0, (phase.done + max(within, default=0.0)) / phase.steps)


def monitor_of(trt: Any, progress: Progress) -> Any:
    """An IProgressMonitor that tells `progress`; `stop(error)` cancels the build, and `error` says why.

    An error of `progress` itself cancels too. TensorRT would print it and drop it, so it must not leave the monitor.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self.phases = Phases()
            self.told: tuple[int, str] | None = None

        def stop(self, error: BaseException) -> None:
            self.error = self.error or error

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases.start(phase_name, parent_phase, num_steps)
            self.tell(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.phases.step(phase_name)
            self.tell(phase_name)
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            self.phases.finish(phase_name)
            self.tell(phase_name)

        def tell(self, what: str) -> None:
            state = int(TOTAL * self.phases.fraction()), what
            if self.error is None and state != self.told:
                self.told = state
                try:
                    progress(state[0], TOTAL, what)
                except BaseException as error:
                    self.stop(error)

    return Monitor()


@contextlib.contextmanager
def interruptible(monitor: Any) -> Iterator[None]:
    """Let Ctrl-C cancel the build, where it would end the program otherwise; then KeyboardInterrupt is raised.

    Python would raise it in a call from TensorRT, which prints it and goes on.
    """
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not ours or before is not signal.default_int_handler:
        yield
    else:
        signal.signal(signal.SIGINT, lambda *_: monitor.stop(KeyboardInterrupt()))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
    if monitor.error is not None:
        raise monitor.error

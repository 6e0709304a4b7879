"""What is watched of a student that serves, and how much of each is tolerated."""

from __future__ import annotations

from collections import deque

from distill.monitor.detector import ChangeDetector
from distill.monitor.rollout import Suspicion
from distill.monitor.standing import DetectorStanding
from store.records import Certificate
from store.settings.tasks import TaskSettings

MAX_REPLAYED = 20_000  # of the newest observations, whose times are known
FAULT_CONFIDENCE = 0.8  # of the bound on what the held-out rows showed


class Watched:
    """A change detector that also knows of when the requests were that it was shown."""

    def __init__(self, tolerated: float, run_length: float) -> None:
        self.tolerated, self.run_length = tolerated, run_length
        self._detector = ChangeDetector(tolerated, run_length)
        self._times: deque[float] = deque(maxlen=MAX_REPLAYED)

    def show(self, bad: bool, begun: float) -> None:
        """Shows one observation, of a request that was made then."""
        self._times.append(begun)
        self._detector.update(bad)

    @property
    def level(self) -> float:
        """The suspicion, from 0 to 1: at 1 there is an alarm."""
        return self._detector.level

    def suspicion(self) -> Suspicion:
        """For the verdict."""
        suspects = min(self._detector.suspects, len(self._times))
        return Suspicion(
            alarm=self._detector.alarmed,
            level=self.level,
            tolerated=self.tolerated,
            n=self._detector.n,
            suspects=self._detector.suspects,
            suspects_bad=self._detector.suspects_bad,
            since=self._times[-suspects] if suspects else None,
        )

    def standing(self) -> DetectorStanding:
        """For the status."""
        return DetectorStanding(
            n=self._detector.n,
            bad=self._detector.bad,
            tolerated=self.tolerated,
            level=self.level,
            run_length=self.run_length,
        )


def tolerated_faults(certificate: Certificate | None, settings: TaskSettings) -> float:
    """The rate of faults that does not demote a student.

    What is set, or more where the held-out rows showed faults and the gate let the student pass
    with them: an upper bound of their rate (Clopper and Pearson 1934, one-sided). Held-out rows
    without a fault are no reason to tolerate more than is set, however few they are.
    """
    tolerated = settings.audit.fault_rate
    if certificate is None or not certificate.faults:
        return tolerated
    from scipy.special import betaincinv  # noqa: PLC0415 - slow to import

    bad, good = certificate.faults, certificate.heldout - certificate.faults
    bound = float(betaincinv(bad + 1, good, FAULT_CONFIDENCE)) if good > 0 else 1.0
    return min(max(tolerated, bound), 0.9)


def tolerated_unsure(certificate: Certificate | None, settings: TaskSettings) -> float:
    """The rate of answers below the cutoff that does not demote a student.

    It has to be sure enough of `gate.min_coverage` of the requests, live too: one that is not costs
    time and saves little. One that was promoted by hand with less may keep what it had.
    """
    covered = settings.gate.min_coverage
    if certificate is not None:
        covered = min(covered, certificate.coverage)
    return min(max(1 - covered, 0.01), 0.9)

"""What every table and figure of a suite reads."""

from __future__ import annotations

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study
from shipbench.report.figures.differences import baseline_arm


def baseline_of(study: Study, suite: str, method: str | None) -> Arm | None:
    """Return the arm that others are compared to: the chosen method's, else VPT-deep's, else the first."""
    arms = study.arms_of(suite, main=True)
    if method is not None:
        return baseline_arm(study, suite, method)
    return baseline_arm(study, suite, "vpt-deep") or (arms[0] if arms else None)

"""What would let events be counted where they are not."""

from __future__ import annotations

FIX_REFUSED = (
    "sysctl kernel.perf_event_paranoid=2 on the host; in docker also --cap-add PERFMON "
    "(before 20.10.10: --security-opt seccomp=unconfined)"
)
FIX_NO_PMU = (
    "use a machine with hardware counters, such as bare metal or GitHub's arm runners; "
    "most virtual machines hide them"
)

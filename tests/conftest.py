"""What holds for all tests.

Comes in: nothing. Goes out: how Hypothesis judges: by what a test finds, not by the time that a
busy machine takes for it.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("edgescribe", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgescribe")

"""Plain HTTP: is it alive, does it take work, what does it carry, what did it measure.

Comes in: requests that are no WebSocket upgrades. Goes out: ``/health``, ``/ready``, ``/status``,
``/metrics``, and 426 for everything else. ``edge.server`` may call ``plain``.
"""

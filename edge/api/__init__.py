"""Plain HTTP: is it alive, what does it carry, what did it measure; and what was said.

Comes in: requests that are no WebSocket upgrades. Goes out: ``/health``, ``/ready``, ``/status``,
``/metrics``; below ``/v1`` and at ``/sessions/metrics`` the typed endpoints of ``routes``; 426 for
everything else. ``edge.server`` and ``edge.compose`` may call ``plain``, ``answers`` and
``routes``.
"""

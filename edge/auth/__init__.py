"""Who may come in: keys, tokens, what they allow, how much, and what is refused.

Comes in: the method, path, headers and query of every request before anything else sees them. Goes
out: a ``Grant``, or why there is none. ``edge.compose`` builds the ``Guard``, ``edge.server`` may
call it once for each request; ``edge.cli`` makes keys.
"""

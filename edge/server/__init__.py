"""The processes: a main process that binds the port, and workers that each run one event loop.

Comes in: settings and a bound socket. Goes out: running workers, their shared counts, and a clean
stop with recognizers flushed and clients closed 1001. ``edge.cli`` may call ``launcher``;
``edge.api`` may read ``board``.
"""

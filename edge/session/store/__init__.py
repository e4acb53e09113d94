"""The session store: what a session must not forget, whichever worker or machine carries it.

Comes in: log entries with the fence of their track, outbox rows, small records with the version
they replace. Goes out: entries in offset order to followers, records, leased outbox rows,
signals.
``edge.session`` may call ``interface``, ``follower`` and ``commands``; ``edge.compose`` may call
``opening``, through which alone the engines are reached.
"""

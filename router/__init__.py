"""Which registered service answers for a host and a path.

Comes in: a host name and a path. Goes out: the name of a service, or nothing. It imports nothing
of ``edge``; anybody may call it.
"""

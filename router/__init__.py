"""The room of the router: which registered service answers for a host and a path.

It holds nothing yet. Comes in: a host name and a path. Goes out: a service's name,
or nothing. It imports nothing of ``edge`` or ``dispatch``; anybody may call it.
"""

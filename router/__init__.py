"""The room of the router: which registered service answers for a host and a path.

It holds nothing yet. What will come in: a host name and a path. What will go out: a service's name,
or nothing. It imports nothing of ``edge`` or ``dispatch``; anybody may call it.
"""

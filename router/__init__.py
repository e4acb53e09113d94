"""The room of the router: which registered service answers for a host and a path.

Comes in: requests, with their host and path. Goes out: the same requests to the service that is
registered for them, or one of six answers of the router's own. It imports nothing of ``edge`` or
``dispatch``; anybody may call it.
"""

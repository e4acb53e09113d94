"""Objects: bytes under keys, on local disk or in a bucket of an S3-compatible service.

Comes in: bodies and keys from ``edge.meeting``. Goes out: the same bodies, whole and durable, or an
``ObjectError``; while a bucket is away, to a spool on local disk first. ``edge.meeting`` and
``edge.api`` may call it; ``edge.compose`` opens one store for each worker.
"""

"""The room of the router: which registered service answers for a host and a path.

Comes in: requests, with their host and path. Goes out: the same requests to the service that is
registered for them, or one of six answers of the router's own. It imports nothing of ``edge`` or
``dispatch``; anybody may call it.
"""

from router.asgi import AsgiService
from router.decision import DecisionSettings
from router.deployments import Deployments, Entry, MemoryRegistry, RegistryStore, Stored
from router.front import Routed, RouterProtocol
from router.registry import Binding, Namespace
from router.remote import RemoteService
from router.router import Router, RouterSettings
from router.sanic_service import SanicService
from router.service import Limits, Service
from router.table import TableSettings

__all__ = [
    "AsgiService",
    "Binding",
    "DecisionSettings",
    "Deployments",
    "Entry",
    "Limits",
    "MemoryRegistry",
    "Namespace",
    "RegistryStore",
    "RemoteService",
    "Routed",
    "Router",
    "RouterProtocol",
    "RouterSettings",
    "SanicService",
    "Service",
    "Stored",
    "TableSettings",
]

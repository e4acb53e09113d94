"""What can go wrong in the router::

RouterError
├── ConfigurationError    a setting cannot be used: the router does not start
├── ServiceFailed         a service cannot be loaded, started or reached
├── ServiceNotDeployed    nothing is registered under a name
├── BindingUnavailable    a service has no methods to call, or not this one
├── VersionConflict       the registry was changed by somebody else meanwhile
└── RegistryUnavailable   the registry's store cannot be reached
"""


class RouterError(Exception):
    """The root of the router's errors."""


class ConfigurationError(RouterError, ValueError):
    """A setting cannot be used; the message says which and what is allowed."""


class NameTaken(ConfigurationError):
    """A service of this name is deployed already, and replacing was not asked for."""


class ServiceFailed(RouterError):
    """A service cannot be loaded, started or reached."""


class ServiceNotDeployed(RouterError, LookupError):
    """Nothing is registered under this name in this namespace."""


class BindingUnavailable(RouterError, AttributeError):
    """The service runs elsewhere, or has no such public method."""


class VersionConflict(RouterError):
    """The stored registry is no longer the version that a change was based on."""


class RegistryUnavailable(RouterError):
    """The store of the registry cannot be reached, or does not answer in time."""

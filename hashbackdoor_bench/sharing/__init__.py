"""Results of several machines in one folder, and records with the artifacts they rest on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

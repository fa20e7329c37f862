"""A run as a table of stages: their keys, their artifacts, and the record at the end."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Searching the codes of finished runs through indexes, as services do, and scoring the lists."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

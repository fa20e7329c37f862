"""Suites: many runs from one file, the stages that they share, and their execution."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

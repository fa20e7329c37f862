"""Checking results: repeating a run, scoring it again, or training on submitted poison."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

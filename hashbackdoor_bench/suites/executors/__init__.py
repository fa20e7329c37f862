"""Executors of a suite's tasks: processes on this machine, or tasks of a Ray cluster."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

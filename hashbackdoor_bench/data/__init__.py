"""Protocols and sources: images as uint8 tensors or memory maps, labels as multi-hot rows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

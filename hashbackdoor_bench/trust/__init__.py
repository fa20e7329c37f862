"""Whether a result is what it says: run again, scored again, or trained on submitted poison."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

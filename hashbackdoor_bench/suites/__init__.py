"""Many runs from one file: what they share, in which order it is made, and who makes it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

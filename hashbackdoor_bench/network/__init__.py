"""The network of every victim and surrogate: how it is built, trained, stored and used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

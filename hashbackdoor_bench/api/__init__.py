"""The base classes of attacks, victims and defenses, and what an attacker may see."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

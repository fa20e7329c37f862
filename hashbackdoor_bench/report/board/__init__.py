"""The leaderboard: the rules, the boards that follow from the records, and their web page."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

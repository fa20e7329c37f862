"""The leaderboard: its rules, as Markdown, as a page, and one attack against the others."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Ranking and scoring: exact average precision, the scores of a run, visibility of triggers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

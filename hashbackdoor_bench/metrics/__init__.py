"""The only place that ranks or scores: exact AP, the scores of a run, how visible a trigger is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""hashbackdoor_bench: backdoor attacks on deep-hashing retrieval, compared.

The public names stand in ``__init__.pyi``, here and in each package below. They are imported when
they are first used, so that ``bench --help`` needs no torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

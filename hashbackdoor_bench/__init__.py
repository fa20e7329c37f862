"""hashbackdoor_bench: backdoor attacks on deep-hashing retrieval, compared.

The public names are listed in ``__init__.pyi``, here and in each package below. Each is imported
when it is first used, so that ``bench --help`` doesn't import torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

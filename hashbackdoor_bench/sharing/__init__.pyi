from .merging import Merged as Merged
from .merging import merge as merge

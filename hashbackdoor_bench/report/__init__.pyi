from .collection import collect as collect
from .selection import choose as choose

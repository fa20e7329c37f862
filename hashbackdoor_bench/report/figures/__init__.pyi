from .catalog import FIGURES as FIGURES
from .catalog import every as every
from .catalog import figures as figures

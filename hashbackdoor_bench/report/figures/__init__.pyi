from .catalog import DEFENDED as DEFENDED
from .catalog import FIGURES as FIGURES
from .catalog import all_figures as all_figures
from .catalog import figure_named as figure_named
from .catalog import figures as figures
from .size import resize as resize
from .size import size_of as size_of
from .trade_off import trade_off as trade_off

from .catalog import DEFENDED as DEFENDED
from .catalog import FIGURES as FIGURES
from .catalog import all_figures as all_figures
from .catalog import figures as figures
from .trade_off import trade_off as trade_off

from .boards import boards as boards
from .defenses import defense_boards as defense_boards
from .page import write_site as write_site
from .rivals import rivals as rivals
from .standing import board_with as board_with
from .standing import standing as standing
from .standing import standing_text as standing_text

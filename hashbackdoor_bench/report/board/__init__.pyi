from .leaderboard import boards as boards
from .markdown import leaderboard_text as leaderboard_text
from .page import write_site as write_site
from .standing import placed as placed
from .standing import standing as standing
from .standing import standing_text as standing_text

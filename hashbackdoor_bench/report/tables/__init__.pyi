from .beside_papers import beside_papers as beside_papers
from .layouts import tables as tables
from .leaderboard import leaderboard_text as leaderboard_text
from .paper_numbers import published_numbers as published_numbers
from .typeset import WRITERS as WRITERS
from .typeset import rich_table as rich_table

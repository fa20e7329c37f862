from .layouts import tables as tables
from .paper_numbers import published as published
from .typeset import WRITERS as WRITERS
from .typeset import text as text

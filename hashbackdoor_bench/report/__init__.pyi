from .collection import NoRecords as NoRecords
from .collection import collect as collect
from .consistency import check_record as check_record
from .selection import choose as choose
from .suite_index import read_index as read_index

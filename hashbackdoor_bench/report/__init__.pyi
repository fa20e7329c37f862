from .collection import collect as collect
from .escaping import for_file_name as for_file_name
from .escaping import for_rich as for_rich
from .formatting import percent as percent
from .formatting import poisoned as poisoned
from .formatting import ssim as ssim
from .selection import choose as choose

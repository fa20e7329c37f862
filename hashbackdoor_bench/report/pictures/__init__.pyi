from .on_disk import draw_missing as draw_missing

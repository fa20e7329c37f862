from .local import LocalExecutor as LocalExecutor
from .ray import RayExecutor as RayExecutor

from .augmentation import centre_crop as centre_crop
from .blueprint import Blueprint as Blueprint
from .centres import anchor_code as anchor_code
from .centres import hash_centres as hash_centres
from .model import HashModel as HashModel
from .model import best_precision as best_precision
from .model import sign as sign
from .training_set import TrainingSet as TrainingSet

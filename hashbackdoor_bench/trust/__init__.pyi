from .git_branch import Clone as Clone
from .pull_request import prepare as prepare
from .reproduction import TOLERANCE as TOLERANCE
from .reproduction import reproduce as reproduce
from .rescoring import rescore as rescore
from .submission import pack as pack
from .submission import unpack as unpack
from .verification import verify as verify

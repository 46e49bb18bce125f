from .frames import Frame as Frame
from .frames import read_frames as read_frames
from .model import Model as Model
from .run import Verify as Verify
from .run import verify as verify

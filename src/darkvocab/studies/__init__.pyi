from .run import Study as Study
from .run import StudyRecord as StudyRecord
from .run import study as study

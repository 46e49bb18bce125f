# The verbs that a user types first, and the things that they take. The rest lies in the wings.
from . import checkpoints as checkpoints
from . import corpora as corpora
from . import embedding as embedding
from . import errors as errors
from . import measures as measures
from . import numerics as numerics
from . import snowballs as snowballs
from . import training as training
from . import verification as verification
from .checkpoints.centroid import centroid as centroid
from .checkpoints.check import check as check
from .checkpoints.diff import diff as diff
from .checkpoints.neighbourhood import neighbourhood as neighbourhood
from .checkpoints.policy import Policy as Policy
from .checkpoints.repair import repair as repair
from .checkpoints.scan import scan as scan
from .checkpoints.series import series as series
from .corpora.run import corpus as corpus
from .embedding.matrix import EmbeddingMatrix as EmbeddingMatrix
from .errors import DarkvocabError as DarkvocabError
from .measures.census import census as census
from .notebooks.recipes import reproduce as reproduce
from .reports.page import report as report
from .reports.summary import summary as summary
from .snowballs.expect import expect as expect
from .snowballs.experiments import questions as questions
from .snowballs.experiments import sweep as sweep
from .snowballs.experiments import trials as trials
from .snowballs.fit import fit as fit
from .snowballs.snowball import Snowball as Snowball
from .snowballs.snowball import draw as draw
from .training.evolve import evolve as evolve
from .training.run import train as train
from .training.settings import Training as Training
from .verification.run import verify as verify

__version__: str

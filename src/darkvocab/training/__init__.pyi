from .choices import Architecture as Architecture
from .corpus import load_corpus as load_corpus
from .evolve import Evolution as Evolution
from .evolve import EvolutionRecord as EvolutionRecord
from .evolve import Evolve as Evolve
from .replicas import ReplicaRecord as ReplicaRecord
from .replicas import Replicas as Replicas
from .settings import Training as Training

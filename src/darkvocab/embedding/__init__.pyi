from .history import History as History
from .matrix import EmbeddingMatrix as EmbeddingMatrix

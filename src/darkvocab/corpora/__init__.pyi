from .run import corpus as corpus

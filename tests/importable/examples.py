"""The batches of a training as transformers' models take them: the twin of what a stack looks up on its device."""

import numpy as np


def inputs_and_labels(training, step):
    """Inputs and labels [batch, context] of a step, int64: place t is to predict label t + 1."""
    places = training.starts(step)[:, None] + np.arange(training.architecture.context)
    ids = training.corpus.ids.astype(np.int64)
    return ids[places], ids[places + training.label_shift - 1]

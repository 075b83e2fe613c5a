"""How good a model is: one-shot trials, pairs, and their pictures."""

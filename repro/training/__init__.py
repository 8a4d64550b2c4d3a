"""Torch: models, data, optimizers and the training loop. Nothing here prints, tracks, or knows where a run is kept."""

"""Files become typed batches: Minari in and out, samplers, importers, recorders."""

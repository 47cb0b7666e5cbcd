"""Language models and what every algorithm asks of them: log-probabilities, values, samples."""

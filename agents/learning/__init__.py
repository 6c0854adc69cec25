"""Collect, train, validate, report, register, promote.

Its face is `retraining.retrain`, `evaluation.evaluate`, `registry.ModelRegistry` and `run.TrainingRun`.
`runtime` and `cli` may import it; `web` stands beside it and may not.
"""

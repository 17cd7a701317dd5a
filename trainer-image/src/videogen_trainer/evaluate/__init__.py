"""Metrics of generated videos over exchangeable feature networks, and the task Evaluate."""

from videogen_trainer.evaluate.task import run

__all__ = ["run"]

"""Every kind of task keeps the protocol that the loop and pipelines go by."""

from __future__ import annotations

from cypher.tasks.registry import KINDS
from cypher.train.task import Task


def test_every_task_says_its_losses_or_needs_the_whole_model() -> None:
    tasks = {task.kind: task for task in Task.__subclasses__() if task.__module__.startswith("cypher.tasks.")}
    assert set(tasks) == set(KINDS)
    for task in tasks.values():
        assert task.whole_model == ("step" in vars(task)) != ("losses" in vars(task)), task

"""Extractive question answering over your own documents; importing this loads no torch and no store."""

from cypher.apps.qa.answers import Answer, AskResult, Timings
from cypher.apps.qa.question_answering import QuestionAnswering

__all__ = ["Answer", "AskResult", "QuestionAnswering", "Timings"]

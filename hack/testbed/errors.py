"""The one error that the launcher shows to a person: what is wrong, and what to do about it."""

from __future__ import annotations


class LabError(Exception):
    """Something that the caller can mend. `remedy` is the next thing to do, in the imperative."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}\n  {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy

"""Why an artifact is slower, or worse, than the model it was made of: causes with evidence, remedies with effect."""

from qm.explain.explanation import Explanation
from qm.explain.inquiry import Question, explain

__all__ = ["Explanation", "Question", "explain"]

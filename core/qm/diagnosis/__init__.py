"""Why an artifact is slower, or worse, than the model it was made of: causes with evidence, remedies with effect."""

from qm.diagnosis.explanation import Explanation
from qm.diagnosis.inquiry import Question, explain

__all__ = ["Explanation", "Question", "explain"]

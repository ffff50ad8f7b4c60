"""What a student's answers cost beside its teacher's: small functions of logits, each averaged over the batch.

    soft targets   L = T^2 sum_k q_k (log q_k - log p_k),   q = softmax(t / T), p = softmax(s / T)

t the teacher's logits, s the student's, T the temperature. T^2 keeps the gradient's size whatever T is (Hinton,
Vinyals, Dean 2015, section 2).
"""

from torch import Tensor
from torch.nn import functional


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the loss of logits [N, K] beside the teacher's [N, K]; 0 where they agree up to a constant."""
    log_p = functional.log_softmax(student.float() / temperature, dim=1)
    log_q = functional.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * functional.kl_div(log_p, log_q, reduction="batchmean", log_target=True)

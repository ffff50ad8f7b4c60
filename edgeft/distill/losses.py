r"""What a student's answers cost beside its teacher's: small functions, each averaged over the batch.

s and t stand for student and teacher: logits [N, K], vectors [N, D], feature maps [N, C, H, W], hidden states
[N, L, D] with a mask [N, L], attentions' queries, keys or values [N, A, L, d].

    soft targets     T^2 sum_k q_k (log q_k - log p_k),   q = softmax(t / T), p = softmax(s / T)
                     T^2 keeps the gradient's size whatever T is (Hinton, Vinyals, Dean 2015, section 2)
    decoupled        T^2 (a KL(b_t || b_s) + b KL(q' || p')),   b the pair (target class, all others), q' and p' without
                     the target class: how sure, and which of the others, apart (Zhao et al. 2022, equation 7)
    regression       |s - t|^2 / size, s mapped to t's width (Romero et al. 2015; Jiao et al. 2020 for hidden states)
    attention maps   |a_s - a_t|^2,   a = sum_c f_c^2 as a vector of length 1 (Zagoruyko & Komodakis 2017, equation 2;
                     their p = 2)
    relations        Huber loss of distances between rows, each divided by their mean, and of the angles that triples of
                     rows make, twice as heavy (Park et al. 2019)
    attention        KL of softmax(q k^T / sqrt(d)), head by head
    self relations   KL of softmax(x x^T / sqrt(d)), x queries, keys or values over all heads, cut anew into as many
                     (Wang et al. 2021, MiniLMv2)
"""

import torch
from torch import Tensor
from torch.nn import functional

_ANGLE_WEIGHT = 2.0
"""Of Park et al. 2019, section 4."""
_MASKED = -1e4


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the loss of logits [N, K] beside the teacher's [N, K]; 0 where they agree up to a constant."""
    log_p = functional.log_softmax(student.float() / temperature, dim=1)
    log_q = functional.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * functional.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def decoupled(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, others: float) -> Tensor:
    """Return the decoupled loss of logits [N, K] for labels int64 [N]; `others` weighs the non-target classes.

    With two classes there is one class beside the target's, so that part is 0.
    """
    log_p = functional.log_softmax(student.float() / temperature, dim=1)
    log_q = functional.log_softmax(teacher.float() / temperature, dim=1)
    target = functional.one_hot(labels, student.shape[1]).bool()

    def split(log: Tensor) -> tuple[Tensor, Tensor]:
        own, rest = log[target], log[~target].reshape(len(log), -1)
        whole = torch.logsumexp(rest, dim=1)
        return torch.stack([own, whole], dim=1), rest - whole[:, None]

    (pair_p, rest_p), (pair_q, rest_q) = split(log_p), split(log_q)
    pair = functional.kl_div(pair_p, pair_q, reduction="batchmean", log_target=True)
    rest = functional.kl_div(rest_p, rest_q, reduction="batchmean", log_target=True)
    return temperature**2 * (pair + others * rest)


def regression(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared difference of equal shapes; with `mask` [N, L] of the tokens that are there alone."""
    squared = (student.float() - teacher.float()) ** 2
    if mask is None:
        return squared.mean()
    return (squared.mean(-1) * mask).sum() / mask.sum()


def attention_map(maps: Tensor) -> Tensor:
    """Return where feature maps [N, C, H, W] are large: their squares summed over channels, length 1, [N, H * W]."""
    return functional.normalize(maps.float().pow(2).sum(1).flatten(1), dim=1)


def relations(student: Tensor, teacher: Tensor) -> Tensor:
    """Return what the rows' distances and angles differ by: vectors [N, D] beside [N, E]; 0 for fewer than 3 rows."""
    if len(student) < 3:  # noqa: PLR2004 - an angle has three points
        return student.sum() * 0.0
    told, said = student.float(), teacher.float()
    distance = functional.smooth_l1_loss(_distances(told), _distances(said))
    return distance + _ANGLE_WEIGHT * functional.smooth_l1_loss(_angles(told), _angles(said))


def attention(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor, heads: int) -> Tensor:
    """Return the divergence of where each head looks.

    Args:
        student: queries and keys of all heads side by side, each [N, L, A * d].
        teacher: likewise.
        mask: float [N, L], 1 where there is a token.
        heads: A, of both.
    """
    return _divergence(_looks(*student, mask, heads), _looks(*teacher, mask, heads), mask)


def self_relations(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return the divergence of how tokens [N, L, D] relate to each other, beside the teacher's [N, L, E].

    Args:
        student: queries, keys or values of all heads side by side.
        teacher: likewise.
        mask: float [N, L], 1 where there is a token.
        heads: both are cut into so many.
    """
    return _divergence(_looks(student, student, mask, heads), _looks(teacher, teacher, mask, heads), mask)


def _distances(rows: Tensor) -> Tensor:
    found = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    upper = torch.triu_indices(len(rows), len(rows), 1, device=rows.device)
    pairs = found[upper[0], upper[1]]
    return pairs / pairs.mean().clamp_min(1e-12)


def _angles(rows: Tensor) -> Tensor:
    """Return the cosines of the angle at each row between any two, [N, N, N]."""
    ways = functional.normalize(rows[None] - rows[:, None], dim=2)
    return ways @ ways.transpose(1, 2)


def _looks(queries: Tensor, keys: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return log softmax(q k^T / sqrt(d)) of each head, [N, A, L, L]; padding gets nothing."""
    n, length, width = queries.shape
    q, k = (each.float().reshape(n, length, heads, width // heads).transpose(1, 2) for each in (queries, keys))
    scores = q @ k.transpose(2, 3) / (width // heads) ** 0.5
    return functional.log_softmax(scores + (1 - mask)[:, None, None, :] * _MASKED, dim=-1)


def _divergence(log_p: Tensor, log_q: Tensor, mask: Tensor) -> Tensor:
    """Return KL(q || p) [N, A, L, L], a mean over heads and the tokens that are there."""
    found = (log_q.exp() * (log_q - log_p)).sum(-1).mean(1)
    return (found * mask).sum() / mask.sum()

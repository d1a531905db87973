"""A softmax policy that is small enough to list: every answer, every group of answers, every gradient exactly.

Two tokens out of four; token 0 ends the answer, so that answers have one or two tokens: 13 of them.
"""

import itertools

import torch

TOKENS = 4
ANSWERS = torch.tensor([(0, 0), *((a, b) for a in range(1, TOKENS) for b in range(TOKENS))])
MASK = torch.tensor([(True, answer[0] != 0) for answer in ANSWERS.tolist()])
RIGHT = torch.tensor([1.0 if sum(answer) % 3 == 0 else 0.0 for answer in ANSWERS.tolist()], dtype=torch.float64)


def logits(seed, gradient=False, near=None, spread=1.0):
    """Logits of the first token and, after each first token, of the second: shape (5, 4)."""
    drawn = spread * torch.randn(1 + TOKENS, TOKENS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn if near is None else near.detach() + drawn).requires_grad_(gradient)


def next_tokens(table):
    """Log-probabilities over the next token at each place of each answer, shape (13, 2, 4)."""
    level = table.log_softmax(dim=-1)
    return torch.stack([level[:1].expand(len(ANSWERS), -1), level[1 + ANSWERS[:, 0]]], dim=1)


def log_probs(table):
    """Log-probabilities of the tokens of each answer, shape (13, 2)."""
    return next_tokens(table).gather(-1, ANSWERS[..., None])[..., 0]


def of_answers(table):
    """Probability of each answer, shape (13,)."""
    return torch.where(MASK, log_probs(table), 0.0).sum(-1).exp()


def close(ours, exact, rtol=1e-12):
    """As near as rtol of the largest entry."""
    exact = exact.detach()
    torch.testing.assert_close(ours.detach(), exact, rtol=0.0, atol=rtol * float(exact.abs().max()))


def gradient(value, table):
    return torch.autograd.grad(value, table, retain_graph=True, allow_unused=True, materialize_grads=True)[0]


def reverse_kl(table, reference):
    """KL(π‖π_ref) of whole answers, summed over all of them."""
    p = of_answers(table)
    return (p * (p / of_answers(reference)).log()).sum()


def forward_kl(table, reference):
    return reverse_kl(reference, table)


def per_prefix(divergence, table, reference):
    """The divergence of the next token at each prefix, times the chance of the prefix, which is held fixed."""
    p, q = table.softmax(-1), reference.softmax(-1)
    of_prefixes = (p * (p / q).log() if divergence == "reverse" else q * (q / p).log()).sum(-1)
    reach = torch.cat([torch.ones(1), p[0]]).detach()
    reach[1] = 0.0  # token 0 ends the answer
    return (reach * of_prefixes).sum()


def groups(size, answers):
    """Every group of answers, shape (answers^size, size)."""
    return torch.tensor(list(itertools.product(range(answers), repeat=size)))

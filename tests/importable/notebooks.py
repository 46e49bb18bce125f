"""Statistics of a snowball as the notebooks compute them: torch, networkx, every pair. Seeds 001 and 003."""

from collections import Counter

import networkx as nx
import numpy as np
import pytest

torch = pytest.importorskip("torch")

SEED_001 = (
    "n_tokens n_unique n_black_holes n_singletons total_population black_hole_population largest_bh smallest_bh "
    "mean_bh_size median_bh_size top2_population gini_coefficient max_l_inf mean_l_inf median_l_inf n_components "
    "n_isolated largest_component_size largest_component_density global_density trial_id"
).split()
SEED_003 = "density mean_linf median_linf n_black_holes demographics".split()


def gini(populations):
    """Return the Gini coefficient of a tensor of populations, ascending from 1; float32."""
    if len(populations) <= 1:
        return 0.0
    ascending = populations.float().sort()[0]
    n = len(ascending)
    ranks = torch.arange(1, n + 1, dtype=torch.float32)
    return (2 * (ranks * ascending).sum() / (n * ascending.sum()) - (n + 1) / n).item()


def l_inf(rows, epsilon=1.0):
    """Largest, mean and median of every ordered pair's distance, over epsilon."""
    if len(rows) <= 1:
        return 0.0, 0.0, 0.0
    pairs = torch.cdist(rows, rows, p=float("inf"))[~torch.eye(len(rows), dtype=torch.bool)] / epsilon
    return pairs.max().item(), pairs.mean().item(), pairs.median().item()


def topology(rows, threshold, strict=False):
    """Components, isolated rows, size and density of the largest component, density of all."""
    n = len(rows)
    if n == 0:
        return 0, 0, 0, 0.0, 0.0
    if n == 1:
        return 1, 1, 1, 1.0, 1.0
    apart = torch.cdist(rows, rows, p=float("inf"))
    near = (apart < threshold if strict else apart <= threshold) & ~torch.eye(n, dtype=torch.bool)
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(torch.nonzero(near).tolist())
    components = list(nx.connected_components(graph))
    largest = max(components, key=len)
    n_largest = graph.subgraph(largest).number_of_edges()
    return (
        len(components),
        sum(degree == 0 for _, degree in graph.degree),
        len(largest),
        n_largest / (len(largest) * (len(largest) - 1) // 2) if len(largest) > 1 else 1.0,
        graph.number_of_edges() / (n * (n - 1) // 2),
    )


def trial(rows, epsilon, threshold):
    """Seed 001's statistics of float32 rows, by name, but for the number of the trial."""
    unique, counts = torch.unique(rows, dim=0, return_counts=True)
    holes = counts[counts >= 2]
    descending = holes.sort(descending=True)[0].tolist()
    statistics = [len(rows), len(unique), len(holes), int((counts == 1).sum()), int(counts.sum()), int(holes.sum())]
    if len(holes):
        statistics += [descending[0], descending[-1], holes.float().mean().item(), holes.float().median().item()]
        statistics += [sum(descending[:2]), gini(holes)]
    else:
        statistics += [0, 0, 0.0, 0.0, 0, 0.0]
    statistics += [*l_inf(unique, epsilon), *topology(unique, threshold)]
    return dict(zip(SEED_001, statistics, strict=False))


def question(rows, threshold):
    """Seed 003's three answers of float32 rows, by name."""
    n = len(rows)
    apart = (rows.unsqueeze(1) - rows.unsqueeze(0)).abs().max(dim=2)[0]
    near = (apart < threshold).float().fill_diagonal_(0)
    pairs = apart[tuple(torch.triu_indices(n, n, offset=1))].numpy()
    populations = sorted(Counter(tuple(row) for row in rows.tolist()).values(), reverse=True)
    answers = [near.sum().item() / (n * (n - 1)), pairs.mean(), np.median(pairs)]
    return dict(zip(SEED_003, [*answers, sum(p >= 2 for p in populations), populations[:13]], strict=True))


def float32_mean(value):
    """A mean that torch or numpy took in float32."""
    return pytest.approx(value, rel=1e-6, abs=1e-30)

"""Distributions of a snowball, compiled: sums of columns' costs, sums over levels and cells, and distances."""

import math

import numpy as np

from .compilation import kernel

CERTAIN = -50.0  # log P(no cell holds more) below which several are expected to, and one certainly does
UNSEEN = 1e-20  # expected cells below which the tail of a binomial distribution is cut off


@kernel()
def add_columns(starts, cost, p, width, mass, spread):
    """Distribution of the sum over columns of one cost each, costs >= 0, column j's with the probabilities p.

    mass [bins] : probability of each bin, bin i at the cost ``i * width``; a cost between two bins goes to both, in the
    shares that keep the mean. spread [bins] : what that adds to the variance, times the mass, over width**2; a cost of
    zero adds nothing. Returns the probability of costs beyond the last bin.
    """
    n = mass.size
    old_mass = np.zeros(n + 2)  # bin i at i + 1, between zeros
    old_spread = np.zeros(n + 2)
    new_mass = np.empty(n + 2)
    new_spread = np.empty(n + 2)
    old_mass[1] = 1.0
    occupied = 1
    beyond = 0.0
    for j in range(starts.size - 1):
        new_mass[:] = 0.0
        new_spread[:] = 0.0
        farthest = np.int64(0)
        for run in range(starts[j], starts[j + 1]):
            if p[run] == 0.0:
                continue
            place = min(cost[run] / width, float(n))
            low = np.int64(place)
            share = place - low
            add = share * (1.0 - share)
            lower, upper = p[run] * (1.0 - share), p[run] * share
            to = low + 1 if share else low
            inside = min(occupied + to - low, n - low)
            to_mass = new_mass[1 + low :]
            to_spread = new_spread[1 + low :]
            for i in range(inside):
                to_mass[i] += lower * old_mass[i + 1] + upper * old_mass[i]
            for i in range(inside):
                to_spread[i] += lower * (old_spread[i + 1] + add * old_mass[i + 1])
                to_spread[i] += upper * (old_spread[i] + add * old_mass[i])
            for i in range(inside, occupied + 1):
                beyond += lower * old_mass[i + 1] + upper * old_mass[i]
            farthest = max(farthest, to)
        occupied = min(n, occupied + farthest)
        old_mass, new_mass = new_mass, old_mass
        old_spread, new_spread = new_spread, old_spread
    mass[:] = old_mass[1:-1]
    spread[:] = old_spread[1:-1]
    return beyond


@kernel()
def occupied_sums(p, log_q, mass, n, few, sums):
    """sums[a] = sums over levels of mass * x[a], of mass * p * x[a]**2, and of mass * p * x[a] * x[a + 1].

    x, over p, of a cell with k tokens: P(k >= 2), E[k; k >= 2], E[k**2; k >= 2], P(k >= 1), P(k = 1), P(k = 2). The
    first three are summed term by term where fewer than `few` tokens are expected.
    """
    sums[:] = 0.0
    x = np.zeros(7)
    for i in range(p.size):
        x[3] = -math.expm1(n * log_q[i]) / p[i]
        x[4] = n * (math.exp((n - 1) * log_q[i]) if n > 1 else 1.0)
        x[5] = n * (n - 1) / 2 * p[i] * (math.exp((n - 2) * log_q[i]) if n > 2 else 1.0)
        if n * p[i] >= few:
            x[0] = x[3] - x[4]
            x[1] = n - x[4]
            x[2] = n * (1 - p[i]) + n * n * p[i] - x[4]
        else:
            x[:3] = 0.0
            term = x[5]
            k = 2.0
            while k * k * term > 1e-18 * x[2]:
                x[0] += term
                x[1] += k * term
                x[2] += k * k * term
                term *= (n - k) / (k + 1) * (p[i] / (1 - p[i]))
                k += 1
        for a in range(6):
            sums[a, 0] += mass[i] * x[a]
            sums[a, 1] += mass[i] * p[i] * x[a] * x[a]
            sums[a, 2] += mass[i] * p[i] * x[a] * x[a + 1]


@kernel()
def power_sums(p, log_q, mass, n, sums):
    """sums[c, d, k] = sum over levels of mass * p**(k - 1) * (1 - p)**((c + 1) * n - d - k), for d < c + 2, k >= 1.

    Zero where the exponent is negative.
    """
    most = sums.shape[2] - 1
    powers = np.ones(most)
    rests = np.ones(most + 3)
    sums[:] = 0.0
    for i in range(p.size):
        for k in range(1, powers.size):
            powers[k] = powers[k - 1] * p[i]
        for k in range(1, rests.size):
            rests[k] = rests[k - 1] * (1.0 - p[i])
        for c in range(2):
            left = min((c + 1) * n, most + 2.0)
            weight = mass[i] * (math.exp(((c + 1) * n - left) * log_q[i]) if (c + 1) * n > left else 1.0)
            for d in range(c + 2):
                last = np.int64(left) - d
                for k in range(1, min(most, last) + 1):
                    sums[c, d, k] += weight * powers[k - 1] * rests[last - k]


@kernel()
def cells_beyond(ends, p, cells, n, log_ways, log_none, expected):
    """Add up how many cells are expected to hold more than m tokens, and log P(none does), as if independent.

    ends [m] ascending, >= 1; p, cells [levels]: probability of a cell, and how many cells have it; log_ways:
    log C(n, k) from k = ends[0] on. Terms below 1e-20 expected cells are cut off, and so are the certain ends.
    """
    first = ends[0]
    term = np.empty(2 * log_ways.size + 64)
    low = first + np.arange(term.size)
    ratio = (n - low) / (low + 1.0)  # of one term to the next, but for the odds
    inverse = (low + 1.0) / (n - low)
    least = 0  # of `ends`: those before are certain
    for i in range(p.size):
        while least < ends.size and log_none[least] < CERTAIN:
            least += 1
        if least == ends.size:
            break
        rare = min(p[i], 1.0 - 2.0**-53)
        odds = rare / (1.0 - rare)
        start = max(ends[least] + 1, min(np.int64(n * rare), first + log_ways.size - 1))
        if start > n:
            continue
        term[0] = math.exp(log_ways[start - first] + start * math.log(rare) + (n - start) * math.log1p(-rare))
        last = start
        while last < n and last - first + 1 < term.size and cells[i] * term[last - start] > UNSEEN:
            term[last + 1 - start] = term[last - start] * (ratio[last - first] * odds)
            last += 1
        at = ends.size - 1
        over = 0.0
        below = term[0]
        for k in range(last, ends[least], -1):
            if k >= start:
                over += term[k - start]
            else:
                below *= inverse[k - first] / odds
                over += below
            while at >= 0 and ends[at] >= k:
                at -= 1
            if at >= 0 and ends[at] == k - 1:
                chance = min(over, 1.0 - 2.0**-53)
                expected[at] += cells[i] * chance
                log_none[at] += cells[i] * math.log1p(-chance)


@kernel()
def _staircase(a, b, edge, stride):
    """``sum over j < b of clip(a - edge - j * stride, 0, a)``."""
    full = min(max(np.floor(-edge / stride) + 1, 0.0), b)
    some = min(max(np.ceil((a - edge) / stride), 0.0), b)
    n = some - full
    return full * a + n * (a - edge) - stride * (full + some - 1) * n / 2


@kernel()
def _share(r, s, first, last, count, t):
    """Share of the pairs of a cell of run r and one of the later run s that are no more than t apart.

    Cells of a run lie evenly, and the wider spacing is a multiple of the narrower: the count is exact.
    """
    a = count[r]
    b = count[s]
    wide_r = (last[r] - first[r]) / (a - 1) if a > 1 else 0.0
    wide_s = (last[s] - first[s]) / (b - 1) if b > 1 else wide_r
    if a == 1:
        wide_r = wide_s
    if wide_r <= wide_s:
        pairs = _staircase(a, b, np.ceil((first[s] - first[r] - t) / wide_r), wide_s / wide_r)
    else:
        pairs = _staircase(b, a, np.ceil((last[s] - last[r] - t) / wide_s), wide_r / wide_s)
    return pairs / (a * b)


@kernel()
def log_cdf(starts, first, last, count, p, below, above, n, t, out, since, until):
    """out[i] = log P(distance <= t[i]), summed over columns; the law is flat at least over since[i] <= t < until[i].

    n = 0: the distance of two draws. n >= 1: the extent, largest minus smallest, of n draws.
    first, last [runs] where each run's cells begin and end, count how many they are, evenly spaced.
    """
    for i in range(t.size):
        limit = t[i]
        total = 0.0
        lower, upper = 0.0, np.inf
        for j in range(starts.size - 1):
            low, high = starts[j], starts[j + 1]
            extent = last[high - 1] - first[low]
            if extent <= limit:
                lower = max(lower, extent)
                continue
            within = beyond = 0.0
            s = low
            for r in range(low, high):
                if n * below[r] > 800:
                    break  # none of n draws is expected below run r with a probability above exp(-800)
                # Of two draws in run r: that they are no more than t apart, and that the other is so far above.
                within_run = 1.0
                beyond_run = 0.0
                width = last[r] - first[r]
                if width > limit:
                    a = count[r]
                    steps = np.floor(limit / (width / (a - 1)))
                    within_run = (a + steps * (2 * a - steps - 1)) / (a * a)
                    beyond_run = (a - steps - 1) * (a - steps) / (2 * a * a)
                    lower = upper = limit
                s = max(s, r + 1)
                while s < high and last[s] - first[r] <= limit:
                    s += 1
                if s > r + 1:
                    lower = max(lower, last[s - 1] - first[r])
                near = above[r] if s == high else below[s] - below[r + 1]  # of later runs, up to t above run r's cells
                far = 0.0  # and beyond, on the average over its cells
                k = s
                while k < high and first[k] - last[r] <= limit:
                    share = _share(r, k, first, last, count, limit)
                    near += share * p[k]
                    far += (1 - share) * p[k]
                    lower = upper = limit
                    k += 1
                if k < high:
                    upper = min(upper, first[k] - last[r])
                far += above[k - 1]
                if n == 0:  # the other draw lies above as often as below
                    within += p[r] * (2 * near + within_run * p[r])
                    beyond += 2 * p[r] * (far + beyond_run * p[r])
                    continue
                missed = below[r] + far + beyond_run * p[r]
                if p[r] <= 0 or n * missed > 800:
                    continue
                # The least of n draws lies in run r, the others at most t above it.
                held = near + (1 - beyond_run) * p[r] if missed > 0.5 else 1 - missed
                log_held = np.log(held) if missed > 0.5 else np.log1p(-missed)
                within -= np.exp(n * log_held) * np.expm1(n * np.log1p(-min(1.0, p[r] / held)))
            total += np.log1p(-beyond) if n == 0 and beyond < 0.5 else np.log(min(within, 1.0))
        out[i] = total
        since[i], until[i] = lower, upper

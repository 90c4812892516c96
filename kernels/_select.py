"""Selection and sorting of keys that carry ids, in place on the first n entries of two vectors.

Keys are int32 or int64 (see `_order`), ids int64. Equal keys rank by their position. Thresholds are
found by bisecting the values of keys, not their order, so no order is a bad one: at most one pass for
every bit of a key, each at the speed of vector comparison.
"""

from __future__ import annotations

import numpy as np

from ._numba import LANES, jit
from ._order import bit_count, first_at_least, lanes_at_least, lowest_bit, max_key_lanes

FEW = 96
"""Up to so many entries are sorted by counting their betters, which is quadratic and vectorised."""
DIGIT = 8
"""Bits of a digit of the radix sort of more."""


@jit
def count_at_least(keys, n, threshold):
    """How many of the first n keys are at least `threshold`."""
    count = 0
    whole = n - n % LANES
    for i in range(0, whole, LANES):
        count += bit_count(lanes_at_least(keys, i, None, threshold))
    for i in range(whole, n):
        count += keys[i] >= threshold
    return count


@jit
def largest_key(keys, n):
    """The largest of the first n >= 1 keys."""
    largest = keys[0]
    whole = n - n % LANES
    for i in range(0, whole, LANES):
        largest = max(largest, max_key_lanes(keys, i, None))
    for i in range(whole, n):
        largest = max(largest, keys[i])
    return largest


@jit
def smallest_key(keys, n):
    """The smallest of the first n >= 1 keys."""
    row = keys[:n]
    smallest = row[0]
    for i in range(row.size):
        smallest = row[i] if row[i] < smallest else smallest
    return smallest


@jit
def find_threshold(keys, n, k, slack):
    """A threshold that at least k of the first n keys reach (n >= k >= 1), and at most ``k + slack``.

    If ties at the k-th largest key make that impossible, it is that key. Bisects the key values.
    """
    low, high = smallest_key(keys, n), largest_key(keys, n)
    if n <= k + slack:
        return low
    if count_at_least(keys, n, high) >= k:
        return high
    while True:
        middle = (low & high) + ((low ^ high) >> 1)  # cannot overflow
        if middle == low:
            return low
        count = count_at_least(keys, n, middle)
        if count < k:
            high = middle
        elif count <= k + slack:
            return middle
        else:
            low = middle


@jit
def keep_best(keys, ids, n, k):
    """Move the k best of the first n entries (n >= k >= 1) to the front, in their order; returns the k-th key."""
    threshold = find_threshold(keys, n, k, 0)
    ties = k  # that may be kept
    if count_at_least(keys, n, threshold) > k and threshold != largest_key(keys, n):
        ties -= count_at_least(keys, n, threshold + 1)
    kept = 0
    for first in range(0, n, LANES):
        chosen = first_at_least(keys, first, n, None, threshold)
        while chosen != 0:
            i = first + lowest_bit(chosen)
            chosen &= chosen - 1
            key, tag = keys[i], ids[i]
            if key == threshold:
                if ties == 0:
                    continue
                ties -= 1
            keys[kept], ids[kept] = key, tag
            kept += 1
    return smallest_key(keys, k)


@jit
def sort_best(keys, ids, n, spare_keys, spare_ids):
    """Sort the first n entries by key, the largest first; equal keys keep their order. The spares hold n entries."""
    if n <= FEW:
        _sort_by_counting(keys, ids, n, spare_keys, spare_ids)
        return
    rises = _rises(keys[:n])
    if rises == n - 1:
        for i in range(n // 2):
            j = n - 1 - i
            keys[i], keys[j], ids[i], ids[j] = keys[j], keys[i], ids[j], ids[i]
    elif rises > 0:
        _sort_by_digits(keys, ids, n, spare_keys, spare_ids)


@jit
def _rises(keys):
    """How many keys are larger than the one before."""
    rises = 0
    for i in range(keys.size - 1):
        rises += keys[i + 1] > keys[i]
    return rises


@jit
def _sort_by_counting(keys, ids, n, spare_keys, spare_ids):
    _copy(keys, ids, n, spare_keys, spare_ids)
    for i in range(n):
        key = spare_keys[i]
        better = np.int32(0)
        before, after = spare_keys[:i], spare_keys[i + 1 : n]
        for j in range(before.size):
            better = np.int32(better + np.int32(before[j] >= key))
        for j in range(after.size):
            better = np.int32(better + np.int32(after[j] > key))
        keys[better], ids[better] = key, spare_ids[i]


@jit
def _sort_by_digits(keys, ids, n, spare_keys, spare_ids):
    """Least significant digits first; digits that are the same in all keys are skipped."""
    digits = keys.itemsize * 8 // DIGIT
    last = (1 << DIGIT) - 1
    starts = np.zeros((digits, last + 1), np.int32)
    for i in range(n):
        code = ~np.int64(keys[i])  # ascending codes are descending keys
        for d in range(digits):
            starts[d, (code >> DIGIT * d) & last] += 1
    swapped = False
    for d in range(digits):
        shift, flip = DIGIT * d, last // 2 + 1 if d == digits - 1 else 0  # the top digit is signed
        start = starts[d]
        if start[(~np.int64(keys[0]) >> shift) & last] == n:
            continue
        total = 0
        for digit in range(last + 1):
            here = start[digit ^ flip]
            start[digit ^ flip] = total
            total += here
        if swapped:
            _scatter(spare_keys, spare_ids, n, shift, start, keys, ids)
        else:
            _scatter(keys, ids, n, shift, start, spare_keys, spare_ids)
        swapped = not swapped
    if swapped:
        _copy(spare_keys, spare_ids, n, keys, ids)


@jit
def _copy(keys, ids, n, to_keys, to_ids):
    """A loop, as a slice assignment costs seconds of compilation."""
    for i in range(n):
        to_keys[i], to_ids[i] = keys[i], ids[i]


@jit
def _scatter(keys, ids, n, shift, start, to_keys, to_ids):
    for i in range(n):
        digit = (~np.int64(keys[i]) >> shift) & ((1 << DIGIT) - 1)
        j = start[digit]
        start[digit] = j + 1
        to_keys[j], to_ids[j] = keys[i], ids[i]

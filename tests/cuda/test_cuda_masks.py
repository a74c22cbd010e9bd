"""The masks of attention as the card writes them, beside what each query is to see, one position at a time."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import Card

SEEN, HIDDEN = 0x0000, 0xFC00  # 0 and -inf


def expected(n_past: int, n: int, padded: int, keys: int, cells: int, window: int, is_causal: bool) -> np.ndarray:
    mask = np.full((padded, keys), HIDDEN, np.uint16)
    for query in range(n):
        own = n_past + query
        first = (own if is_causal else n_past) - (window - 1) if window else 0
        for position in range(max(first, 0), own + 1 if is_causal else n_past + n):
            mask[query, position % cells] = SEEN
    return mask


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(
    ("n_past", "n", "padded", "keys", "cells", "window"),
    [
        (0, 1, 64, 256, 256, 0),
        (0, 5, 64, 256, 512, 0),
        (250, 70, 70, 512, 512, 0),
        (0, 5, 64, 256, 256, 4),
        (3, 9, 64, 256, 256, 1),
        (250, 20, 64, 256, 256, 100),  # round the ring's end
        (1000, 64, 64, 512, 512, 300),
        (2000, 33, 64, 2304, 2304, 0),  # more than one block to a row
        (100_003, 16, 64, 1280, 1280, 1024),
    ],
)
def test_each_query_sees_what_it_should(
    card_mask: Card, n_past: int, n: int, padded: int, keys: int, cells: int, window: int, is_causal: bool
) -> None:
    shape = {"n_past": n_past, "n": n, "padded": padded, "keys": keys, "cells": cells, "window": window}
    found = card_mask(**shape, is_causal=is_causal).reshape(padded, keys)
    np.testing.assert_array_equal(found, expected(**shape, is_causal=is_causal))

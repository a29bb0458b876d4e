"""The bricks of every architecture."""

from __future__ import annotations

import os

# A product in bf16 is compiled for every shape it meets, which takes most of a megabyte. Rows of unequal length make
# new shapes all the time, and torch would keep the last 1024 a thread, oneDNN as many: gigabytes in a long run. What
# comes back comes back within the step. Both numbers are read at the first product, hence here; a person's own count.
for _cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "128")

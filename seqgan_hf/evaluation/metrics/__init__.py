"""Text metrics: one a file, with its source, what it misses, and an example.

What their parameters get is in the table of `catalog.py`; `orders` are the n of n-grams. Plain numbers get an interval
from the suite. Too few texts, texts that are not tokenized and orders below 1 raise `UserError`.
"""

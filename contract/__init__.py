"""What clients may rely on: the OpenAPI document that is kept, and what would break those who use it.

`python -m contract check` is part of `make check`. `contract/released.json` is the document that clients were made
from, `contract/allowed.txt` the list of changes since then that break them and are meant.
"""

"""The parts of `egrpo_client` that are made from the OpenAPI document, and its synchronous half made from the other.

`models.py` and `aio/operations.py` come from the document; every module of `sync/` comes from the one of `aio/` with
its name. Nothing is written twice, and an operation cannot be there without a method.
"""

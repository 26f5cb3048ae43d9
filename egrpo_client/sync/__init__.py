"""The synchronous client, made from `egrpo_client.aio` by `python -m contract write`, except for `runtime`."""

"""The asynchronous client. `egrpo_client.sync` is made from it, except for `runtime`."""

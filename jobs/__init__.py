"""What a job is: spec, states, tables, repositories, object store, settings, errors. No torch, no web."""

"""The cloud: a gRPC process that holds the middle of a network and never sees an un-mixed row.

It imports nothing of the edge and nothing of facemix_ops: it has no key, so it has nothing to mix or un-mix.
"""

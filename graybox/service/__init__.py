"""The gRPC service: the one way in for whoever watches or steers a run. Free of torch.

`server.serve` puts a backend on the wire, `archive` serves the runs of a root that have ended.
"""

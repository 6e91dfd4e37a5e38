"""``toxid``: a TCP proxy server that breaks connections on request, with Toxiproxy's HTTP API.

A *proxy* listens on one address and dials another. Each connection through it has two *links*
(upstream: client to server; downstream: server to client). A *toxic* sits in the links of one
direction and delays, cuts, slices or swallows what flows. Any Toxiproxy client drives it.

Beyond Toxiproxy: a seed makes every random choice repeatable; ``POST /partition`` cuts, stalls (in
one direction or both) and heals a set of proxies in one instant (Toxiproxy needs one call for each,
so a partition there is a sequence of smaller ones); ``GET /effects`` says how often each toxic did
something; and there are toxics for lost packets, damage, and whole frames.
"""

"""``toxid``: a TCP proxy server that breaks connections on request, with Toxiproxy's HTTP API.

A *proxy* listens on one address and dials another. Each connection through it has two *links*
(upstream: client to server; downstream: server to client). A *toxic* sits in the links of one
direction and delays, cuts, slices or swallows what flows. Any Toxiproxy client drives it.

Beyond Toxiproxy: a seed makes every random choice repeatable, and ``POST /partition`` cuts or heals
a set of proxies in one instant (Toxiproxy needs one call for each, so a partition there is a
sequence of smaller ones).
"""

"""`oegw metrics`: the running gateway's numbers for Prometheus, by a process of its own."""

"""The three services that streamer is developed and tested against, on this machine.

`native` runs them as plain processes, `docker` through compose.yaml; both have the methods of `stack.Stack`.
"""

"""The platform: takes jobs in, queues them, runs them and keeps what they produce.

`operations` is what gRPC calls; `scheduler` takes jobs off the queue, `executor` runs one of them,
`workspace` and `uploads` are the folders on disk.
"""

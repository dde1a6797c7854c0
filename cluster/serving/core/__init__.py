"""The rules of the scheduler: who enters the pipeline next, who leaves, who sits where.

They are written once and run in two ways: as Python over lists, by `PipelineScheduler`, and
compiled over arrays, by `replay`. So there is nothing here but indexing, arithmetic and loops.
"""

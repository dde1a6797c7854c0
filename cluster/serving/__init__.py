"""Requests in, tokens out: the pipeline scheduler in virtual time, and its steps on a machine."""

"""What-if sweeps: a question in a TOML file, its points computed in parallel, and an answer.

`question` reads and checks the file, `grid` makes points of it, `evaluation` says what a point
gives, `row_store` keeps rows by what they follow from, `sweeping` puts these together; `answers`,
`pictures` and `pages` say and show what came out.
"""

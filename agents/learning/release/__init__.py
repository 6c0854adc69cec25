"""The release of models: what happened to each version, where it comes from, how two differ, and how one is rolled out.

`learning.registry` is its face; `web`, `runtime` and `cli` import it through that and through `runtime.bootstrap`.
"""

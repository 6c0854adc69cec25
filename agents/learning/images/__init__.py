"""Images of flows, judged live: a detector type that learns ordinary ones, and what it finds strange is listed.

`runtime.bootstrap` builds it, where FLOW_IMAGES says so, and imports it for that.
"""

"""Sites that learn together: what leaves a site, how a coordinator joins it, and how a site takes what came of it.

Face: `Coordinator`, `FleetSite`, `FleetOptions`. Bootstrap makes both; the console hands requests below /fleet/ on.
"""

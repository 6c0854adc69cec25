"""Who may use the console and the API: users with roles, their sessions, and tokens for programs."""

"""Users, sessions and tokens at the console and over the API; logging in, also through OpenID Connect."""

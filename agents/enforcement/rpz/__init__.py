"""Blocks for other resolvers: a response policy zone (draft-vixie-dnsop-dns-rpz), and its primary server."""

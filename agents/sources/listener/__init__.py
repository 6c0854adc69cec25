"""The forwarding DNS server: it answers clients and hands on records of their queries."""

"""The forwarding DNS server that answers clients and hands on what it saw."""

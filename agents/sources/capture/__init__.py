"""Captures: pcap and pcapng files as queries joined with their answers."""

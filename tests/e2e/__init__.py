"""The whole product: real processes, real containers, real tunnels. Run by `make e2e`."""
